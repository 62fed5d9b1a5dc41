//go:build integration

package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/fsm/gtid"
)

// keepsStrangersOut lets a replica go on by another address of its host, so that the primary's server counts the acknowledgements of somebody whom
// the cluster does not know.
func keepsStrangersOut(s *scenario) {
	primary := s.primary()
	moved := s.others(primary)[0]
	known := s.addressOf(primary)
	other := known.As4()
	other[3] = 250
	stranger := netip.AddrFrom4(other)
	s.byHand(moved, fmt.Sprintf("ip addr add %s/24 dev eth0 && ip route add %s/32 dev eth0 src %s", stranger, known, stranger))
	s.cutDumps(primary)
	if s.Flavor() == gtid.MariaDB {
		reads := s.reader(primary)
		defer reads()
	}
	st := s.await("the stranger to be told", func(st api.Status) bool {
		return slices.ContainsFunc(st.Why, func(w string) bool { return strings.Contains(w, stranger.String()) })
	})
	if st.Epoch != s.before.Epoch {
		s.Errorf("epoch %d became %d", s.before.Epoch, st.Epoch)
	}
	s.await(moved+" to have left the set", func(st api.Status) bool {
		return st.Sync.Change == nil && len(st.Sync.Set) == 1 && !slices.Contains(st.Sync.Set, moved)
	})
	s.writesGoOn()
	err := Await(s.ctx, "nobody to be heard from "+stranger.String(), func(context.Context) (bool, string) {
		dumps := s.dumps(primary)
		return !slices.ContainsFunc(dumps, func(d string) bool { return strings.HasPrefix(d, stranger.String()+":") }), fmt.Sprint(dumps)
	})
	if err != nil {
		s.Error(err)
	}
	s.byHand(moved, fmt.Sprintf("ip route del %s/32 dev eth0 src %s && ip addr del %s/24 dev eth0", known, stranger, stranger))
	s.heals()
	s.nothingHappened()
}

func (s *scenario) addressOf(host string) netip.Addr {
	s.Helper()
	h, found := s.Host(host)
	a, err := netip.ParseAddr(h.Address)
	if !found || err != nil {
		s.Fatalf("%s has no address: %v", host, err)
	}
	return a
}

// reader takes the binary log of a server from the client's host and acknowledges nothing; the result ends it, and demands that nobody did before.
func (s *scenario) reader(primary string) (end func()) {
	s.Helper()
	h, _ := s.Host(primary)
	s.byHand(primary, "mariadb -uroot -S "+h.Socket+
		` -e "CREATE USER IF NOT EXISTS reader IDENTIFIED BY 'reader'; GRANT REPLICATION SLAVE ON *.* TO reader"`)
	ctx, cancel := context.WithCancel(s.ctx)
	var running sync.WaitGroup
	running.Go(func() {
		var said bytes.Buffer
		_, err := s.Exec(ctx, clientHost, []string{"mariadb-binlog", "--read-from-remote-server", "--stop-never", "--stop-never-slave-server-id=777", "--host=" + h.Address,
			fmt.Sprintf("--port=%d", h.MySQLPort), "--user=reader", "--password=reader", "binlog.000001"}, strings.NewReader(""), io.Discard, &said)
		if ctx.Err() == nil {
			s.Errorf("the reader of the binary log ended early: %v: %s", err, said.String())
		}
	})
	var named netip.Addr
	err := Await(s.ctx, "the reader to be connected", func(context.Context) (bool, string) {
		dumps := s.dumps(primary)
		for _, d := range dumps {
			if a, err := netip.ParseAddrPort(d); err == nil && !slices.ContainsFunc(s.DataHosts(), func(host string) bool { return s.addressOf(host) == a.Addr() }) {
				named = a.Addr()
			}
		}
		return named.IsValid(), fmt.Sprint(dumps)
	})
	if err != nil {
		s.Fatal(err)
	}
	return func() {
		s.Helper()
		for _, w := range s.await("an answer", func(st api.Status) bool { return st.Leader != "" }).Why {
			if strings.Contains(w, named.String()+" ") {
				s.Errorf("a reader that acknowledges nothing is blamed: %s", w)
			}
		}
		cancel()
		running.Wait()
	}
}

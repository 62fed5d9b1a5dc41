//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// TestSetup: hbctl check has nothing to blame on hosts as the sandbox makes them, and names each wrong on its host.
func TestSetup(t *testing.T) {
	g := newGroup(t, sandbox.Options{})
	g.run(t, "sound", func(s *scenario) {
		got, exit := s.check()
		for _, r := range got.Rows {
			if r.Result != api.CheckOK {
				s.Logf("%+v", r)
			}
			if r.Result == api.CheckFailed {
				s.Errorf("blamed: %+v", r)
			}
		}
		if exit != exitDone || !got.OK || len(got.Rows) < 60 {
			s.Errorf("exit %d, ok %v, %d rows", exit, got.OK, len(got.Rows))
		}
	})
	g.run(t, "each wrong is named", func(s *scenario) {
		replica := s.others(s.primary())[0]
		w := wordsOf(s.Flavor())
		primary := s.manager(s.primary())
		defer primary.Close()
		for _, statement := range []string{"CREATE TABLE highbase.other (id INT) ENGINE=MyISAM", "SET GLOBAL max_allowed_packet=33554432"} {
			if _, err := primary.ExecContext(s.ctx, statement); err != nil {
				s.Fatal(err)
			}
		}
		h, _ := s.Host(replica)
		option := filepath.Join(filepath.Dir(h.Log), "my.cnf")
		before, err := os.ReadFile(option)
		if err != nil {
			s.Fatal(err)
		}
		lines := slices.DeleteFunc(strings.Split(string(before), "\n"), func(line string) bool { return strings.HasPrefix(line, "read_only") })
		if err := os.WriteFile(option, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			s.Fatal(err)
		}
		got, exit := s.check()
		s.named(got, "check.engine", s.primary(), api.CheckFailed)
		s.named(got, "check.same", "", api.CheckWarning)
		if w.source == "MASTER" { // MySQL persists it
			s.named(got, "check.boot-read-only", replica, api.CheckWarning)
		}
		if exit != exitRefused || got.OK {
			s.Errorf("exit %d, ok %v", exit, got.OK)
		}
		if err := os.WriteFile(option, before, 0o600); err != nil {
			s.Fatal(err)
		}
		for _, statement := range []string{"DROP TABLE highbase.other", "SET GLOBAL max_allowed_packet=DEFAULT"} {
			if _, err := primary.ExecContext(s.ctx, statement); err != nil {
				s.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		defer cancel()
		err = Await(ctx, "a good check once the replicas have dropped the table too", func(context.Context) (bool, string) {
			got, exit := s.check()
			return exit == exitDone && got.OK, fmt.Sprintf("exit %d, ok %v: %+v", exit, got.OK, slices.DeleteFunc(got.Rows, func(r api.CheckRow) bool { return r.Result != api.CheckFailed }))
		})
		if err != nil {
			s.Error(err)
		}
	})
	g.run(t, "a lost host is named and the others are told", func(s *scenario) {
		lost := s.others(s.primary())[0]
		s.fault("kill-host", lost)
		got, exit := s.check()
		s.named(got, "check.asked", lost, api.CheckFailed)
		s.named(got, "check.reach", s.primary(), api.CheckFailed)
		if exit != exitRefused {
			s.Errorf("exit %d", exit)
		}
		one, exit := s.check(s.primary())
		if slices.ContainsFunc(one.Rows, func(r api.CheckRow) bool { return r.Node == lost }) || exit != exitRefused {
			s.Errorf("one node asked for: exit %d, %+v", exit, one.Rows)
		}
		s.fault("start-host", lost)
	})
}

// check runs hbctl check and reads its JSON.
func (s *scenario) check(nodes ...string) (api.Check, int) {
	s.Helper()
	primary, _ := s.Host(s.primary())
	var out, errs bytes.Buffer
	argv := append([]string{s.hbctl, "--addr", primary.API, "-o", "json", "check"}, nodes...)
	exit, err := s.Exec(s.ctx, clientHost, argv, strings.NewReader(""), &out, &errs)
	if err != nil {
		s.Fatal(err)
	}
	var got api.Check
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		s.Fatalf("reading %q: %v; %s", out.String(), err, errs.String())
	}
	return got, exit
}

// named demands a row; any node when none is given.
func (s *scenario) named(c api.Check, rule, node, result string) {
	s.Helper()
	var seen []api.CheckRow
	for _, r := range c.Rows {
		if r.Rule != rule || r.Result == api.CheckOK {
			continue
		}
		seen = append(seen, r)
		if (node == "" || r.Node == node) && r.Result == result && r.Mend != "" {
			s.Logf("%+v", r)
			return
		}
	}
	s.Errorf("%s of %q is not %s: %+v", rule, node, result, seen)
}

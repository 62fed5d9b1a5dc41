package mysqld

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ReplicationTLS is how a replica speaks to its source. The files are read by the
// server and must be readable to it.
type ReplicationTLS struct {
	CA        string // certificates that the source's must be signed by
	Cert, Key string // the replica's own; empty: none is shown
	// Verify also compares the source's name or address with its certificate.
	Verify bool
}

// Channel is how a replica is set up, apart from where its source is.
type Channel struct {
	User string
	// TLS is nil when the receiver does not ask for it.
	TLS *ReplicationTLS
	// Delay is what an operator lets the applier lag behind on purpose.
	Delay time.Duration
	// ConnectRetry and Heartbeat in seconds, as the server writes them; empty when unknown.
	ConnectRetry, Heartbeat string
	// IgnoreServerIDs, and MariaDB's filters by domain, as the server writes them: lists.
	IgnoreServerIDs, DoDomains, IgnoreDomains string
	// NetTimeout is the server's net timeout for receivers, in seconds.
	NetTimeout string
}

// lastChannel is the channel of the last status of a server that was a replica. A
// promotion forgets it in the server (RESET), and so may somebody behind our back;
// the next CHANGE gives it again.
type lastChannel struct {
	mu      sync.Mutex
	channel Channel
	// of is the receiver of a run of the server to which period, its heartbeat, belongs.
	of       process
	receiver uint64
	period   string
}

// heartbeatOf is the heartbeat of a running receiver, "" while it is not known.
func (l *lastChannel) heartbeatOf(p process, receiver uint64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if receiver == 0 || p == (process{}) || p != l.of || receiver != l.receiver {
		return ""
	}
	return l.period
}

func (l *lastChannel) noteHeartbeat(p process, receiver uint64, period string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of, l.receiver, l.period = p, receiver, period
}

func (l *lastChannel) set(c Channel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.channel = c
}

func (l *lastChannel) get() Channel {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.channel
}

// RememberChannel gives what Status told of the channel in an earlier life of this
// process. It is given again when this server, being no replica, becomes one.
func (s *Server) RememberChannel(c Channel) { s.channel.set(c) }

// drift names what of a replica's channel is not as configured. What an operator
// adds (a delay, ignored servers, its own retry) is no drift.
func (c Channel) drift(cfg Config) []string {
	var out []string
	if c.User != cfg.ReplicationUser {
		out = append(out, fmt.Sprintf("the account is %q, configured is %q", c.User, cfg.ReplicationUser))
	}
	if cfg.TLS == nil {
		return out // not configured: whatever an operator gave is kept
	}
	if c.TLS == nil {
		return append(out, "TLS is off, configured is on")
	}
	for _, one := range []struct{ name, is, want string }{
		{"CA", c.TLS.CA, cfg.TLS.CA}, {"certificate", c.TLS.Cert, cfg.TLS.Cert}, {"key", c.TLS.Key, cfg.TLS.Key},
		{"verification of the source's name", onOff(c.TLS.Verify), onOff(cfg.TLS.Verify)},
	} {
		if one.is != one.want {
			out = append(out, fmt.Sprintf("TLS %s is %q, configured is %q", one.name, one.is, one.want))
		}
	}
	return out
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// The receiver's timing that hbd gives where nobody else has: a source that returns is followed at once, and a heartbeat
// twice a second shows a dead link without shortening the net timeout (after which STOP blocks in connect,
// docs/SERVERS.md, stop blocks).
const (
	ownConnectRetry   = "1"
	ownHeartbeat      = "0.5"
	stockConnectRetry = "60" // what both servers use when nobody says anything
)

// timing is what a CHANGE gives: what an operator set to something of his own stays. Both servers set a heartbeat that
// a CHANGE does not name back to half the net timeout (in seconds).
func (c Channel) timing() (connectRetry, heartbeat string) {
	connectRetry, heartbeat = ownConnectRetry, ownHeartbeat
	if c.ConnectRetry != "" && c.ConnectRetry != stockConnectRetry {
		connectRetry = c.ConnectRetry
	}
	period, err := strconv.ParseFloat(c.Heartbeat, 64)
	net, errNet := strconv.ParseFloat(c.NetTimeout, 64)
	if err == nil && errNet == nil && period != net/2 {
		heartbeat = c.Heartbeat
	}
	return connectRetry, heartbeat
}

// tlsOptions writes the TLS options of a CHANGE, with prefix MASTER_ or SOURCE_; nothing when there are none to give,
// which leaves them as they are.
func tlsOptions(prefix string, t *ReplicationTLS) (options string, args []any) {
	if t == nil {
		return "", nil
	}
	verify := 0
	if t.Verify {
		verify = 1
	}
	return fmt.Sprintf(", %[1]sSSL=1, %[1]sSSL_CA=?, %[1]sSSL_CERT=?, %[1]sSSL_KEY=?, %[1]sSSL_VERIFY_SERVER_CERT=%[2]d", prefix, verify),
		[]any{t.CA, t.Cert, t.Key}
}

// numbers is a list as the servers write it.
var numbers = regexp.MustCompile(`^[0-9]+(, *[0-9]+)*$`)

// forgotten writes what a server that is no replica forgot of its channel: the delay and the lists. A CHANGE on a replica
// does not name them and so keeps them.
func (c Channel) forgotten(prefix string) string {
	var b strings.Builder
	if c.Delay > 0 {
		fmt.Fprintf(&b, ", %sDELAY=%d", prefix, int(c.Delay.Seconds()))
	}
	for _, list := range []struct{ name, value string }{{"IGNORE_SERVER_IDS", c.IgnoreServerIDs}, {"DO_DOMAIN_IDS", c.DoDomains}, {"IGNORE_DOMAIN_IDS", c.IgnoreDomains}} {
		if numbers.MatchString(list.value) {
			fmt.Fprintf(&b, ", %s=(%s)", list.name, list.value)
		}
	}
	return b.String()
}

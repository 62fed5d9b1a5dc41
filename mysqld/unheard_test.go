package mysqld

import (
	"bytes"
	"context"
	"database/sql"
	"net"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// unheard is a connection on which one statement is lost on the way to the server.
type unheard struct {
	net.Conn
	text []byte
}

func (u unheard) Write(b []byte) (int, error) {
	if bytes.Contains(b, u.text) {
		return len(b), nil
	}
	return u.Conn.Write(b)
}

// losing is another hand on the node's server: one statement of it does not arrive.
func (n *node) losing(text string) *Server {
	n.t.Helper()
	s, err := Open(n.cfg)
	n.must(err)
	n.must(s.Close()) // of it only what follows is used
	cfg := s.driver.Clone()
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := s.dial(ctx, network, addr)
		return unheard{conn, []byte(text)}, err
	}
	connector, err := mysql.NewConnector(cfg)
	n.must(err)
	s.db = sql.OpenDB(connector)
	n.t.Cleanup(func() { n.must(s.db.Close()) })
	return s
}

// TestGivenUpEndOfSemiSyncIsRemembered: whichever way it was asked for. What did not return in time could still tell waiting clients success, after the
// server was made to wait again.
func TestGivenUpEndOfSemiSyncIsRemembered(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		n := cluster(t, k, 1, false)[0]
		for what, end := range map[string]func(*Server, context.Context) error{
			"degrading": (*Server).Degrade, "as a replica to be": (*Server).DisableSourceSemiSync,
		} {
			ctx := testContext(t)
			n.must(n.SetReadOnly(ctx))
			n.must(n.EnableSourceSemiSync(ctx, 1))
			s := n.losing(n.words().disableSource)
			if err := end(s, short(t)); err == nil {
				t.Errorf("%s: a statement that did not arrive has returned", what)
			}
			if left := s.abandonedSync.all(); len(left) != 1 {
				t.Errorf("%s: remembered: %v", what, left)
			}
			if st, err := s.Status(ctx); err != nil || !st.SourceSemiSyncEnabled || st.Acks != 0 {
				t.Errorf("%s: semi-sync %t, it says that commits wait for %d acknowledgements, %v", what, st.SourceSemiSyncEnabled, st.Acks, err)
			}
			n.must(s.EnableSourceSemiSync(ctx, 1))
			if left := s.abandonedSync.all(); len(left) != 0 {
				t.Errorf("%s: remembered for good: %v", what, left)
			}
		}
	})
}

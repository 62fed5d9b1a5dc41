package probe

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
)

// reachTimeout bounds a login whose caller gave no deadline.
const reachTimeout = 10 * time.Second

// Account is what logins are made with: the replication account, which may do nothing else.
type Account struct {
	User, Password string
	// TLS is used over the network; nil speaks without it.
	TLS *tls.Config
}

// Reacher asks servers on other hosts for a sign of life.
type Reacher struct {
	Login Account // a witness has none: being refused is an answer
	Log   *slog.Logger
}

// Reach logs in to the server at host:port and out again, so that the server counts no aborted connection and never
// blocks this host for them. It returns nil when the server answered, be it with a refusal: wrong password and "too
// many connections" are answers. It returns an error when nobody listens, nothing comes back before ctx ends, the
// connection breaks, or the server is shutting down.
func (r Reacher) Reach(ctx context.Context, host string, port uint16) error {
	addr := net.JoinHostPort(host, strconv.Itoa(int(port)))
	err := r.login(ctx, "tcp", addr)
	switch reply(err) {
	case replyStatus, replyError:
		return nil
	default:
		return fmt.Errorf("reaching the server at %s: %w", addr, err)
	}
}

// Reach is Reacher.Reach with the prober's own account.
func (p *Prober) Reach(ctx context.Context, host string, port uint16) error {
	return Reacher{p.cfg.Login, p.log}.Reach(ctx, host, port)
}

// login connects, logs in, asks for a sign of life and logs out.
func (r Reacher) login(ctx context.Context, network, addr string) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, reachTimeout)
		defer cancel()
	}
	var spoke atomic.Bool
	c := mysql.NewConfig()
	c.User, c.Passwd = r.Login.User, r.Login.Password
	c.Net, c.Addr = network, addr
	if network != "unix" {
		c.TLS = r.Login.TLS
	}
	c.Logger = driverLogger{r.Log}
	c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return hearing{conn, &spoke}, nil
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return fmt.Errorf("preparing a login: %w", err)
	}
	conn, err := connector.Connect(ctx)
	if err != nil {
		return ownTrouble(ctx, err, spoke.Load())
	}
	defer conn.Close() // says goodbye; failing means it is gone already
	if pinger, ok := conn.(driver.Pinger); ok {
		err = pinger.Ping(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err() // the driver only says that its connection is bad
	}
	return err
}

// ownTrouble turns what the driver dislikes about a greeting into an answer: a server whose kind of login we do not
// know has answered. A broken connection and an ended deadline stay what they are.
func ownTrouble(ctx context.Context, err error, spoke bool) error {
	var netErr net.Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !spoke, errors.As(err, &netErr), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, driver.ErrBadConn), errors.Is(err, mysql.ErrInvalidConn):
		return err
	}
	if _, ok := serverError(err); ok {
		return err
	}
	return &mysql.MySQLError{Number: clientSideError, Message: err.Error()}
}

// clientSideError is CR_UNKNOWN_ERROR: the number range of clients, which no server uses.
const clientSideError = 2000

// serverError finds the number of an error that the server itself sent.
func serverError(err error) (uint16, bool) {
	var fromServer *mysql.MySQLError
	if errors.As(err, &fromServer) {
		return fromServer.Number, true
	}
	return 0, false
}

// hearing is a connection that notes whether the other end ever spoke: the kernel accepts connections for a hung server.
type hearing struct {
	net.Conn
	spoke *atomic.Bool
}

func (h hearing) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if n > 0 {
		h.spoke.Store(true)
	}
	return n, err
}

// driverLogger sends what the driver says to slog. All of it is also returned as errors, so it is detail.
type driverLogger struct{ log *slog.Logger }

// Print implements the driver's Logger.
func (l driverLogger) Print(v ...any) { l.log.Debug("database driver", "message", fmt.Sprint(v...)) }

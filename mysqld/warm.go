package mysqld

import (
	"context"
	"database/sql"
	"database/sql/driver"
)

// readyConnector hands out connections that were logged in beforehand and still
// live, and logs in where there is none.
type readyConnector struct {
	driver.Connector
	ready chan driver.Conn
}

// Connect implements driver.Connector. The pool takes what it gets for new and
// looks no further, so one that was killed meanwhile must not be handed out.
func (c *readyConnector) Connect(ctx context.Context) (driver.Conn, error) {
	for {
		select {
		case conn := <-c.ready:
			if lives(ctx, conn) {
				return conn, nil
			}
			conn.Close() // the server has closed it already
		default:
			return c.Connector.Connect(ctx)
		}
	}
}

// lives asks the driver for the look at the socket that the pool has it take
// before a connection is used again.
func lives(ctx context.Context, conn driver.Conn) bool {
	r, ok := conn.(driver.SessionResetter)
	return ok && r.ResetSession(ctx) == nil
}

// prepare logs in n times.
func (c *readyConnector) prepare(ctx context.Context, n int) error {
	for range n {
		conn, err := c.Connector.Connect(ctx)
		if err != nil {
			return err
		}
		c.ready <- conn // never full: one round at a time, and each clears it
	}
	return nil
}

// clear closes what nobody took.
func (c *readyConnector) clear() {
	for {
		select {
		case conn := <-c.ready:
			conn.Close() // it was never used: nothing to lose
		default:
			return
		}
	}
}

// keepControl asks for control connections to be opened if some are missing.
// It is called when the server has just answered.
func (s *Server) keepControl() {
	if s.db.Stats().OpenConnections < controlConnections {
		s.wantWarm()
	}
}

// wantWarm asks for a round of opening control connections; it never blocks.
func (s *Server) wantWarm() {
	select {
	case s.warm <- struct{}{}:
	default: // a round is already asked for
	}
}

// keepWarm opens the control connections whenever asked to, until ctx ends.
func (s *Server) keepWarm(ctx context.Context) {
	defer s.stopped.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.warm:
			if err := s.openControlConnections(ctx); err != nil && ctx.Err() == nil {
				s.log.Debug("opening control connections", "server", s.target(), "error", err)
			}
		}
	}
}

// openControlConnections logs in as often as connections are missing, then holds
// as many at once as shall be kept and gives them all back to the pool, which
// keeps them. No login is under way while they are held: it may hang, and who
// found none of them idle would log in too and hang with it.
func (s *Server) openControlConnections(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	var held []*sql.Conn
	defer func() {
		for _, c := range held {
			c.Close() // gives it back; an error means it is already gone
		}
		s.connector.clear()
	}()
	if err := s.connector.prepare(ctx, controlConnections-s.db.Stats().OpenConnections); err != nil {
		return err
	}
	for missing := controlConnections - s.db.Stats().InUse; missing > 0; missing-- {
		c, err := s.db.Conn(ctx)
		if err != nil {
			return err
		}
		held = append(held, c)
	}
	return nil
}

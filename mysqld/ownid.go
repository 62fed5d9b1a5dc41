package mysqld

import (
	"context"
	"fmt"
	"math"
	"strings"
)

// A MariaDB replica drops what carries its own server_id, silently: its position
// goes on as if it had applied it. With semi-sync and gtid_strict_mode it takes
// it, because a recovery that rolled back prepared transactions makes it fetch
// its own acknowledged ones again (docs/SERVERS.md, own transactions). A
// replica outside the sync set has no semi-sync: while it is, it runs under
// another server_id, which nothing it writes ever carries.

// firstAlias is the lowest server_id that stands for another one.
const firstAlias = 1 << 31

func aliased(id uint32) bool { return id >= firstAlias }

// otherID is the alias of an id, and the id of an alias.
func otherID(id uint32) uint32 { return math.MaxUint32 - id }

func (mariadb) acceptOwn(id uint32) []string {
	if aliased(id) {
		return nil
	}
	return []string{fmt.Sprintf("SET GLOBAL server_id=%d", otherID(id))}
}

func (mariadb) takeBack(id uint32) []string {
	if !aliased(id) {
		return nil
	}
	return []string{fmt.Sprintf("SET GLOBAL server_id=%d", otherID(id))}
}

// OwnServerID is the server_id that the server was given, also while it runs
// under another one.
func (st Status) OwnServerID() uint32 {
	if st.ServerUUID == "" && aliased(st.ServerID) { // MariaDB
		return otherID(st.ServerID)
	}
	return st.ServerID
}

// serverID is the server_id as it is now. It is asked for where no whole status
// was read: an id taken from elsewhere would make this server another one.
func (s *Server) serverID(ctx context.Context) (uint32, error) {
	r, err := row(ctx, s.db, "SELECT @@global.server_id AS id")
	if err != nil {
		return 0, fmt.Errorf("reading server_id: %w", err)
	}
	id := uint32(r.number("id"))
	if id == 0 {
		return 0, fmt.Errorf("reading server_id: %s answers %q; replication needs one above 0", s.target(), r["id"])
	}
	return id, nil
}

// takeBackID gives the server its own identity again. What was received under
// the other one is applied first, with the receiver stopped: it bears no mark
// that its own transactions among it are to be applied. None are left when the
// barrier of an epoch of another primary is applied: that came after all of them.
// epoch is 0 when there is none to go by. The caller holds the right to change
// replication and starts the receiver again.
func (s *Server) takeBackID(ctx context.Context, st Status, sever func() error, epoch uint64) error {
	statements := s.dialect.takeBack(st.ServerID)
	if len(statements) == 0 {
		return nil
	}
	if st.HasReplication {
		if running, err := s.ensureApplier(ctx, st); err != nil {
			return err
		} else if running {
			if err := s.stopReceiver(ctx, sever); err != nil {
				return err
			}
			frozen, err := s.Status(ctx)
			if err != nil {
				return err
			}
			behind, err := s.ownIsBehind(ctx, frozen, epoch)
			if err != nil {
				return err
			}
			if !behind {
				if err := s.drain(ctx, frozen.Received); err != nil {
					return err
				}
			}
		}
	}
	// Its outcome is known: under its own id, and silent, the server would drop what is its own.
	certain, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := execute(certain, s.db, statements...); err != nil {
		return fmt.Errorf("giving the server its own server_id again: %w", err)
	}
	s.log.Debug("own server_id again", "server", s.target(), "server_id", otherID(st.ServerID))
	return nil
}

// ownIsBehind tells that nothing which this server wrote as a primary can be among
// what it received and has not applied: the barrier of the epoch in which another is
// primary is applied. Domains need not be applied in order.
func (s *Server) ownIsBehind(ctx context.Context, st Status, epoch uint64) (bool, error) {
	if epoch == 0 || strings.Contains(st.Received, ",") {
		return false, nil
	}
	last, _, err := s.LastEpoch(ctx)
	return last == epoch, err
}

// beOneself is for a server about to write: what it writes bears its own id.
func (s *Server) beOneself(ctx context.Context) error {
	if len(s.dialect.acceptOwn(1)) == 0 { // it never takes another one
		return nil
	}
	// This stands in the pause of every change of primary: of a whole status only the id counts.
	id, err := s.serverID(ctx)
	if err != nil || len(s.dialect.takeBack(id)) == 0 {
		return err
	}
	unlock, err := s.lockReplication(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	return s.takeBackID(ctx, st, nil, 0)
}

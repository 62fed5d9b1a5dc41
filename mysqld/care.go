package mysqld

import (
	"context"
	"errors"
	"fmt"
)

// Setting is one variable of a server, what it is and what the guarantees need.
type Setting struct {
	Name, Is, Want string
}

// String is a weakened setting in words.
func (s Setting) String() string { return fmt.Sprintf("%s is %s, needed is %s", s.Name, s.Is, s.Want) }

// weakened keeps the settings that are not as they must be.
func weakened(all []Setting) []Setting {
	var out []Setting
	for _, s := range all {
		if s.Is != s.Want {
			out = append(out, s)
		}
	}
	return out
}

// judgeCare fills in what is derived of a status: what deviates of the settings and of the channel.
func (s *Server) judgeCare(st *Status) {
	st.Weakened = weakened(s.dialect.settings(*st))
	if !st.HasReplication {
		st.Channel = s.channel.get()
		return
	}
	s.channel.set(st.Channel)
	st.ChannelDrift = st.Channel.drift(s.cfg)
}

// MendSettings puts back the settings named by Status.Weakened, which can all be
// set at run time and only in the direction that promises more. Each is tried;
// the error joins what was refused, with the privilege that is missing (1227).
func (s *Server) MendSettings(ctx context.Context) error {
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, one := range st.Weakened {
		if err := execute(ctx, s.db, s.dialect.mend(one)); err != nil {
			errs = append(errs, fmt.Errorf("putting back %s: %w", one.Name, err))
			continue
		}
		s.log.Warn("setting put back", "variable", one.Name, "was", one.Is, "is", one.Want)
	}
	return errors.Join(errs...)
}

// transientErrors stop an applier although the same transaction may succeed at
// the next try: the server's own retries (slave_transaction_retries) are used up.
var transientErrors = map[int]string{
	1205: "lock wait timeout", 1213: "deadlock", 1614: "XA transaction rolled back by a deadlock",
	1020: "the row changed meanwhile", 1317: "interrupted", 1927: "killed", 1756: "coordinator killed",
	1021: "disk full", 1037: "out of memory", 1041: "out of memory", 1114: "table full",
}

// Transient tells whether an applier that stopped with this error is worth
// starting again as it is.
func Transient(errno int) bool { return transientErrors[errno] != "" }

// loginErrors are refusals of the replication account: by the source (no such
// account or password, host not allowed, account locked, TLS demanded, password expired)
// or by the client library (TLS failed, plugin missing, no secure connection).
var loginErrors = map[int]bool{
	1044: true, 1045: true, 1130: true, 1698: true, 1862: true, 3118: true, 3159: true, 3878: true,
	1251: true, 2026: true, 2059: true, 2061: true,
}

// LoginRefused tells whether a receiver's error is about how it logs in.
func LoginRefused(errno int) bool { return loginErrors[errno] }

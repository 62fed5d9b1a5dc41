package mysqld

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Facts is what a server is set to, for whoever judges that before it matters.
type Facts struct {
	Status    Status
	Variables map[string]string // by name, in lower case
	// Boot is what the server would start with by itself: option files, and what
	// is persisted in it (MySQL), which outranks them. BootError if not known.
	Boot      map[string]string
	BootError error
	// MissingGrants are privileges that ManagerGrants names and the manager lacks.
	MissingGrants []string
	// Replication is what is wrong with the replication account, "" for nothing.
	Replication string
	// Bypass are accounts other than the manager that write in spite of read_only.
	Bypass      []string
	BypassError error
	XAStarts    uint64 // since the server started
	// Events is how many scheduled events there are, as far as the manager may see them.
	Events int
	// MissingEventGrants are privileges that EventGrants names and the manager lacks.
	MissingEventGrants []string
}

// factVariables are read on both servers; each has those it knows.
var factVariables = []string{
	"server_id", "gtid_domain_id", "gtid_strict_mode", "gtid_mode", "enforce_gtid_consistency", "log_bin", "log_slave_updates", "log_replica_updates",
	"binlog_format", "sync_binlog", "innodb_flush_log_at_trx_commit", "relay_log_recovery", "performance_schema", "read_only", "super_read_only",
	"lower_case_table_names", "innodb_page_size", "max_allowed_packet", "character_set_server", "collation_server", "sql_mode", "event_scheduler",
}

// Facts asks the server for them. The error is of a server that does not answer;
// what alone could not be found out is said in its place.
func (s *Server) Facts(ctx context.Context) (Facts, error) {
	st, err := s.Status(ctx)
	if err != nil {
		return Facts{}, err
	}
	f := Facts{Status: st}
	if f.Variables, err = named(ctx, s.db, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ("+quotedList(factVariables)+")"); err != nil {
		return Facts{}, fmt.Errorf("reading the settings of %s: %w", s.target(), err)
	}
	counters, err := named(ctx, s.db, "SHOW GLOBAL STATUS WHERE Variable_name='Com_xa_start'")
	if err != nil {
		return Facts{}, fmt.Errorf("reading the counters of %s: %w", s.target(), err)
	}
	f.XAStarts = counters.number("com_xa_start")
	if f.MissingGrants, err = s.missingGrants(ctx); err != nil {
		return Facts{}, err
	}
	if f.MissingEventGrants, err = s.missingEventGrants(ctx); err != nil {
		return Facts{}, err
	}
	events, err := s.Events(ctx)
	if err != nil && !errors.Is(err, ErrEventRights) { // which has been said
		return Facts{}, fmt.Errorf("reading the scheduled events of %s: %w", s.target(), err)
	}
	f.Events = len(events)
	f.Replication = s.replicationProblem(ctx)
	f.Bypass, f.BypassError = s.dialect.bypassers(ctx, s.db, s.cfg)
	if f.Boot, f.BootError = s.bootOptions(ctx); f.BootError == nil {
		f.BootError = s.addPersisted(ctx, f.Boot)
	}
	return f, nil
}

// addPersisted lays over what SET PERSIST wrote; a server without it has none.
func (s *Server) addPersisted(ctx context.Context, boot map[string]string) error {
	persisted, err := s.dialect.persisted(ctx, s.db)
	for name, value := range persisted {
		boot[name] = value
	}
	return err
}

// missingGrants compares the manager's own grants with those it should have.
func (s *Server) missingGrants(ctx context.Context) ([]string, error) {
	held, err := s.globalGrants(ctx)
	if err != nil || slices.Contains(held, "ALL PRIVILEGES") {
		return nil, err
	}
	wanted, err := ManagerGrants(s.cfg.Dialect, "manager")
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, grant := range wanted {
		for _, p := range globalPrivileges(grant) {
			if !slices.Contains(held, p) && !slices.Contains(missing, p) {
				missing = append(missing, p)
			}
		}
	}
	return missing, nil
}

// globalGrants are the manager's own privileges on everything.
func (s *Server) globalGrants(ctx context.Context) ([]string, error) {
	all, err := rows(ctx, s.db, "SHOW GRANTS")
	if err != nil {
		return nil, fmt.Errorf("reading the grants of the manager: %w", err)
	}
	var held []string
	for _, r := range all {
		for _, text := range r {
			held = append(held, globalPrivileges(text)...)
		}
	}
	return held, nil
}

// globalPrivileges reads "GRANT A, B ON *.* TO ..."; other grants have none.
func globalPrivileges(grant string) []string {
	list, rest, found := strings.Cut(strings.TrimPrefix(grant, "GRANT "), " ON *.* ")
	if !found || !strings.HasPrefix(rest, "TO ") {
		return nil
	}
	var out []string
	for p := range strings.SplitSeq(list, ",") {
		out = append(out, strings.ToUpper(strings.TrimSpace(p)))
	}
	return out
}

// replicationProblem looks for the account that replicas log in with.
func (s *Server) replicationProblem(ctx context.Context) string {
	found, err := rows(ctx, s.db, "SELECT GRANTEE, MAX(PRIVILEGE_TYPE='REPLICATION SLAVE') AS may FROM information_schema.USER_PRIVILEGES GROUP BY GRANTEE")
	if err != nil {
		return fmt.Sprintf("cannot be looked at: %v", err)
	}
	there, others := false, false
	for _, r := range found {
		mine := strings.HasPrefix(r["GRANTEE"], "'"+s.cfg.ReplicationUser+"'@")
		if mine && r.yes("may") {
			return ""
		}
		there = there || mine
		others = others || !strings.HasPrefix(r["GRANTEE"], "'"+s.cfg.ManagerUser+"'@")
	}
	switch {
	case there:
		return s.cfg.ReplicationUser + " lacks REPLICATION SLAVE"
	case !others:
		return "cannot be looked at: " + errBlind.Error()
	}
	return "no account " + s.cfg.ReplicationUser
}

// optionTimeout bounds a server program that only prints its options.
const optionTimeout = 5 * time.Second

// errNoOptionFile: the server reads none, so everything it starts with is on its command line.
var errNoOptionFile = errors.New("the server is started with --no-defaults")

// bootOptions asks the running server's own program what its option files say,
// with the same files as the running one.
func (s *Server) bootOptions(ctx context.Context) (map[string]string, error) {
	p := s.peer.current()
	if (p == process{}) {
		return nil, errors.New("the server's process is not known: it is not reached over its unix socket")
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
	if err != nil {
		return nil, fmt.Errorf("reading the server's command line: %w", err)
	}
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
	if err != nil {
		return nil, fmt.Errorf("finding the server's program: %w", err)
	}
	program = strings.TrimSuffix(program, " (deleted)") // upgraded since: the new one is asked
	args, err := defaultsOf(strings.Split(string(raw), "\x00"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, optionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, append(args, "--print-defaults")...).Output()
	if err != nil {
		return nil, fmt.Errorf("asking %s for its option files: %w", filepath.Base(program), err)
	}
	return parseOptions(string(out)), nil
}

// defaultsOf are the arguments after the program's name that say which option files a command line reads. What stands
// before them belongs to a loader that started the server.
func defaultsOf(command []string) ([]string, error) {
	var args []string
	for i, arg := range command {
		switch {
		case arg == "--no-defaults":
			return nil, errNoOptionFile
		case strings.HasPrefix(arg, "--defaults-"):
			if args == nil {
				args = append(args, command[1:i]...)
			}
			args = append(args, arg)
		}
	}
	return args, nil
}

// switchOptions begin with skip and are switches of that very name.
var switchOptions = []string{"skip_slave_start", "skip_replica_start", "skip_name_resolve", "skip_networking", "skip_show_database"}

// parseOptions reads what --print-defaults prints: one line of options. Names are
// made variables' names; the last of two wins, as it does in the server.
func parseOptions(text string) map[string]string {
	out := map[string]string{}
	_, line, found := strings.Cut(strings.TrimSpace(text), "\n")
	if !found {
		return out
	}
	for option := range strings.SplitSeq(" "+strings.ReplaceAll(line, "\n", " "), " --") {
		name, value, given := strings.Cut(strings.TrimSpace(option), "=")
		if name == "" {
			continue
		}
		name = strings.TrimPrefix(strings.ToLower(strings.ReplaceAll(name, "-", "_")), "loose_")
		if !given {
			value = "ON"
		}
		for _, prefix := range []string{"skip_", "disable_"} {
			if rest, off := strings.CutPrefix(name, prefix); off && !given && !slices.Contains(switchOptions, name) {
				name, value = rest, "OFF"
			}
		}
		out[strings.TrimPrefix(name, "enable_")] = value
	}
	return out
}

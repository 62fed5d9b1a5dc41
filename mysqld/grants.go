package mysqld

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// ManagerGrants gives the statements that grant account ('user'@'host', quoted)
// what this package needs and no more, plus SELECT on the schema mysql, without
// which accounts that bypass read_only cannot be named. They are to be run on
// the primary by an administrator; the accounts are made beforehand.
func ManagerGrants(dialectName, account string) ([]string, error) {
	common := []string{"GRANT ALL ON highbase.* TO " + account, "GRANT SELECT ON mysql.* TO " + account}
	switch dialectName {
	case "mariadb":
		return append([]string{"GRANT SLAVE MONITOR, BINLOG MONITOR, REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, READ_ONLY ADMIN," +
			" CONNECTION ADMIN, PROCESS, BINLOG ADMIN, RELOAD, SUPER ON *.* TO " + account}, common...), nil
	case "mysql":
		return append([]string{
			"GRANT REPLICATION CLIENT, REPLICATION SLAVE, PROCESS, RELOAD ON *.* TO " + account,
			"GRANT REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN, PERSIST_RO_VARIABLES_ADMIN, CONNECTION_ADMIN, SYSTEM_USER, CLONE_ADMIN ON *.* TO " + account,
			"GRANT SELECT ON performance_schema.* TO " + account,
			"GRANT INSERT ON mysql.plugin TO " + account, // INSTALL PLUGIN of semi-sync
		}, common...), nil
	}
	return nil, fmt.Errorf("%w: dialect %q", ErrUnsupported, dialectName)
}

// ReplicationGrants gives the statements for the account replicas log in with,
// and copies are taken with.
func ReplicationGrants(dialectName, account string) []string {
	out := []string{"GRANT REPLICATION SLAVE ON *.* TO " + account}
	if dialectName == "mysql" {
		out = append(out, "GRANT BACKUP_ADMIN ON *.* TO "+account) // CLONE, at the donor
	}
	return out
}

// EventGrants gives the privileges with which the manager lets scheduled events
// follow the primary: to see them, and to enable those of any definer. They are
// apart from ManagerGrants, because everything else works without them.
func EventGrants(dialectName, version string) []string {
	if dialectName == "mariadb" {
		return []string{"EVENT", "SET USER"}
	}
	var major, minor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n == 2 && (major < 8 || major == 8 && minor < 2) {
		return []string{"EVENT", "SET_USER_ID"}
	}
	return []string{"EVENT", "SET_ANY_DEFINER", "ALLOW_NONEXISTENT_DEFINER"}
}

// missingEventGrants are those of EventGrants that the manager lacks.
func (s *Server) missingEventGrants(ctx context.Context) ([]string, error) {
	held, err := s.globalGrants(ctx)
	if err != nil || slices.Contains(held, "ALL PRIVILEGES") {
		return nil, err
	}
	v, err := row(ctx, s.db, "SELECT VERSION() AS version")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(EventGrants(s.cfg.Dialect, v["version"]), func(p string) bool { return slices.Contains(held, p) }), nil
}

// lacking is ErrEventRights with what is missing and how to mend it; nil if nothing is.
func (s *Server) lacking(missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, ", ")
	return fmt.Errorf("%w: it lacks %s; run GRANT %s ON *.* TO '%s'@'localhost' on the primary", ErrEventRights, list, list, s.cfg.ManagerUser)
}

// withRights says what is missing where the server refused a right.
func (s *Server) withRights(ctx context.Context, err error) error {
	if Classify(err) != FaultAuth {
		return err
	}
	missing, asked := s.missingEventGrants(ctx)
	if asked != nil || len(missing) == 0 {
		return fmt.Errorf("%w: %w", ErrEventRights, err)
	}
	return s.lacking(missing)
}

package mysqld

import "fmt"

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

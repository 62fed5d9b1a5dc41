package main

import (
	"fmt"
)

// maxSocketPath is the longest path of a unix socket (unix(7), sun_path, without the closing zero).
const maxSocketPath = 107

// checkServer judges the section server. A witness has none.
func checkServer(c *config, d *decoder) {
	s := c.Server
	switch {
	case c.isWitness() && s != nil:
		d.refuse("server", "is given, but this node is a witness", "leave it out, or make this node's role data")
		return
	case c.isWitness():
		return
	case s == nil:
		d.refuse("server", "is missing", "describe this node's database server, or make the node a witness in peers")
		return
	}
	oneOf(d, "server.dialect", s.Dialect, dialectMariaDB, dialectMySQL)
	checkPath(d, "server.socket", s.Socket, "/run/mysqld/mysqld.sock")
	if len(s.Socket) > maxSocketPath {
		d.refuse("server.socket", fmt.Sprintf("has %d letters", len(s.Socket)), fmt.Sprintf("the kernel takes %d: use a shorter path", maxSocketPath))
	}
	if c.self != nil && s.Port != c.self.mysqlPort() {
		d.refuse("server.port", fmt.Sprintf("is %d, but the others know this node's mysql_port as %d", s.Port, c.self.mysqlPort()), "make the two the same")
	}
	c.checkAccount(d, "server.manager", &s.Manager, "highbase")
	c.checkReplication(d)
	if s.DataDir != "" {
		checkPath(d, "server.data_dir", s.DataDir, "/var/lib/mysql")
	}
	checkService(d, s.Service)
}

// checkAccount judges one account and reads its password.
func (c *config) checkAccount(d *decoder, key string, a *accountConfig, example string) {
	if a.User == "" {
		d.refuse(key+".user", "is missing", "name the account, such as "+example)
	}
	before := len(d.problems)
	checkPath(d, key+".password_file", a.PasswordFile, "/etc/highbase/"+example+".password")
	if len(d.problems) > before {
		return
	}
	password, warning, err := readPassword(a.PasswordFile)
	if err != nil {
		d.refuse(key+".password_file", fmt.Sprintf("cannot be used: %v", err), "put the password into its first line, mode 600")
		return
	}
	a.password = password
	if warning != "" {
		c.Warnings = append(c.Warnings, warning)
	}
}

// checkService judges how mysqld is started: each kind needs its keys and has no others.
func checkService(d *decoder, s serviceConfig) {
	given := map[string]bool{"command": len(s.Command) > 0, "pid_file": s.PIDFile != "", "log": s.Log != "", "unit": s.Unit != "",
		"start": len(s.Start) > 0, "stop": len(s.Stop) > 0, "kill": len(s.Kill) > 0}
	needs := map[string][]string{kindChild: {"command", "pid_file", "log"}, kindSystemd: {"unit"}, kindCommand: {"start", "pid_file"}}
	may := map[string][]string{kindCommand: {"stop", "kill"}}
	oneOf(d, "server.service.kind", s.Kind, kindChild, kindSystemd, kindCommand)
	if needs[s.Kind] == nil {
		return
	}
	wanted := map[string]bool{}
	for _, key := range needs[s.Kind] {
		wanted[key] = true
		if !given[key] {
			d.refuse("server.service."+key, "is missing", "kind "+s.Kind+" needs it")
		}
	}
	for _, key := range may[s.Kind] {
		wanted[key] = true
	}
	for _, key := range []string{"command", "pid_file", "log", "unit", "start", "stop", "kill"} {
		if given[key] && !wanted[key] {
			d.refuse("server.service."+key, "has no meaning with kind "+s.Kind, "leave it out")
		}
	}
	for key, path := range map[string]string{"pid_file": s.PIDFile, "log": s.Log} {
		if path != "" {
			checkPath(d, "server.service."+key, path, "/run/mysqld/mysqld.pid")
		}
	}
	for key, command := range map[string][]string{"command": s.Command, "start": s.Start, "stop": s.Stop, "kill": s.Kill} {
		if len(command) > 0 {
			checkPath(d, "server.service."+key+"[0]", command[0], "/usr/sbin/mariadbd")
		}
	}
}

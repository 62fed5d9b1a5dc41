package raftnode

import (
	"fmt"
	"strings"
)

// ServerID names a member of the Raft group: "<node>.<instance>".
type ServerID string

// MakeServerID joins a node id and the instance of its store.
func MakeServerID(node, instance string) ServerID {
	return ServerID(node + "." + instance)
}

// Node returns the stable node id.
func (id ServerID) Node() string {
	node, _ := id.split()
	return node
}

// Instance returns the instance of the node's store.
func (id ServerID) Instance() string {
	_, instance := id.split()
	return instance
}

// split cuts at the last dot: node ids may contain dots, instances are hexadecimal.
func (id ServerID) split() (node, instance string) {
	i := strings.LastIndexByte(string(id), '.')
	if i < 0 {
		return string(id), ""
	}
	return string(id)[:i], string(id)[i+1:]
}

// Identity is what the dialling end of a connection says of itself.
type Identity struct {
	Cluster string
	Server  ServerID
}

// Server is one member of the Raft group.
type Server struct {
	ID ServerID
	// Address is where its Raft listens, "ip:port".
	Address string
	// Voter is false for a member that receives the log and does not count towards a quorum.
	Voter bool
}

// maxNameBytes bounds the names that go into handshakes and log lines.
const maxNameBytes = 128

// checkName refuses names that could be taken for something else in a server id or an address.
func checkName(what, name string) error {
	if name == "" || len(name) > maxNameBytes {
		return fmt.Errorf("%s %q must have 1 to %d bytes", what, name, maxNameBytes)
	}
	for _, r := range name {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
		if !ok {
			return fmt.Errorf("%s %q may hold letters, digits, '-', '_' and '.' only", what, name)
		}
	}
	return nil
}

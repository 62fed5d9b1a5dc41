package vip

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// snmpPath holds the TCP counters of the thread's network namespace (RFC 4022, MIB-II; proc_net(5)).
const snmpPath = "/proc/thread-self/net/snmp"

// accepted reads how many TCP connections this host has accepted. The file stays open, and so its namespace the one it
// was opened in.
type accepted struct {
	file *os.File
	err  error // why there is none
}

// openAccepted does not fail: whoever cannot count looks.
func openAccepted() accepted {
	f, err := os.Open(snmpPath)
	if err != nil {
		err = fmt.Errorf("opening the counters of TCP: %w", err)
	}
	return accepted{f, err}
}

func (a accepted) close() error {
	if a.file == nil {
		return nil
	}
	return a.file.Close()
}

func (a accepted) read() (uint64, error) {
	if a.err != nil {
		return 0, a.err
	}
	b := make([]byte, 4096)
	n, err := a.file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("reading the counters of TCP: %w", err)
	}
	return passiveOpens(b[:n])
}

// passiveOpens finds tcpPassiveOpens: a line with names is followed by one with values, both begin with the protocol.
func passiveOpens(snmp []byte) (uint64, error) {
	var names [][]byte
	for line := range bytes.Lines(snmp) {
		fields := bytes.Fields(line)
		if len(fields) == 0 || string(fields[0]) != "Tcp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if string(name) == "PassiveOpens" && i < len(fields) {
				n, err := strconv.ParseUint(string(fields[i]), 10, 64)
				if err != nil {
					return 0, fmt.Errorf("%s: PassiveOpens: %w", snmpPath, err)
				}
				return n, nil
			}
		}
	}
	return 0, fmt.Errorf("%s does not tell PassiveOpens of Tcp", snmpPath)
}

// Accepted counts the TCP connections that this host has accepted since it started, on any address: while it stays the
// same, nobody has come. Unlike Connections it costs next to nothing.
func (m *Manager) Accepted() (uint64, error) { return m.accepted.read() }

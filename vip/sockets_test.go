package vip

import (
	"maps"
	"net"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBothQuestionsListTheSame: connections of both families, and IPv4 ones in a socket that listens on both.
func TestBothQuestionsListTheSame(t *testing.T) {
	open, want := map[string]bool{}, 0
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		ln, err := net.Listen("tcp", listen)
		if err != nil && listen == "[::1]:0" {
			t.Logf("this host has no IPv6: %v", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		at := ln.Addr().String()
		if listen == ":0" {
			at = net.JoinHostPort("127.0.0.1", strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
		}
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		served, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = served.Close() })
		open[conn.LocalAddr().String()], open[conn.RemoteAddr().String()] = true, true
		want += 2
	}
	sock, err := dialNetlink(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sock.close() })
	mine := func(s tcpSocket) bool { return open[s.local.String()] && open[s.remote.String()] }
	var before map[string]byte
	ways := socketQuestions()
	refused := []nlMessage{{typ: sockDiagByFamily - 1}} // no such question
	if _, err := askAll(sock, refused, mine); err == nil {
		t.Fatal("a question that there is not was answered")
	}
	for what, ways := range map[string][][]nlMessage{
		"one for both families": ways[:1],
		"one for each":          ways[1:],
		"the first is refused":  append([][]nlMessage{refused}, ways[1:]...),
	} {
		found, err := listSockets(sock, ways, mine)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		ends := map[string]byte{}
		for _, s := range found {
			ends[s.local.String()+" "+s.remote.String()] = s.family
		}
		if len(ends) != want {
			t.Errorf("%s: %d ends of connections, %d are there: %v", what, len(ends), want, ends)
		}
		if before != nil && !maps.Equal(ends, before) { // the family is needed to destroy one
			t.Errorf("the answers differ: %v and %v", ends, before)
		}
		before = ends
	}
	if _, err := listSockets(sock, [][]nlMessage{refused}, mine); err == nil {
		t.Error("nobody answered, and that is no error")
	}
}

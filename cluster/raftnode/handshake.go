package raftnode

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The first bytes of every connection are the magic, a version and the dialler's hello; the answer is
// one status byte and a reason. Only then does Raft's own protocol begin. Changing any of it breaks a
// rolling upgrade, so a new version has to be understood before it is spoken.
var magic = []byte("HBRAFT")

const (
	handshakeVersion = 1
	// maxHandshakeBytes bounds what is read from a peer that has not said yet who it is.
	maxHandshakeBytes = 1024

	statusWelcome byte = 0
	statusRefused byte = 1
)

// hello says who dials and whom it wants. Both ends are named because an address proves nothing: another
// cluster, or the same node with a wiped store, may be listening there.
type hello struct {
	Cluster string   `json:"cluster"`
	From    ServerID `json:"from"`
	To      ServerID `json:"to"`
}

// refusal is the answer of a peer that does not want this connection.
type refusal struct {
	reason string
}

func (r *refusal) Error() string { return "refused by peer: " + r.reason }

// greet performs the dialler's half. On success the connection has no deadline left.
func greet(conn net.Conn, h hello, deadline time.Time) error {
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	body, err := json.Marshal(h)
	if err != nil {
		return err
	}
	out := append(bytes.Clone(magic), handshakeVersion)
	if _, err := conn.Write(append(out, frame(body)...)); err != nil {
		return fmt.Errorf("sending handshake: %w", err)
	}
	var status [1]byte
	if _, err := io.ReadFull(conn, status[:]); err != nil {
		return fmt.Errorf("reading answer to handshake: %w", err)
	}
	reason, err := readFrame(conn)
	if err != nil {
		return fmt.Errorf("reading answer to handshake: %w", err)
	}
	if status[0] != statusWelcome {
		return &refusal{reason: string(reason)}
	}
	return conn.SetDeadline(time.Time{})
}

// receive performs the listener's half: it reads the hello, lets judge decide, and answers. A refusal is
// returned as *refusal; on success the connection has no deadline left.
func receive(conn net.Conn, judge func(hello) error, deadline time.Time) (hello, error) {
	if err := conn.SetDeadline(deadline); err != nil {
		return hello{}, err
	}
	h, err := readHello(conn)
	if err == nil {
		err = judge(h)
	}
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		// A peer that is already gone misses the reason, which our own log has.
		return h, errors.Join(err, answer(conn, statusRefused, refused.reason))
	case err != nil:
		return h, err
	}
	if err := answer(conn, statusWelcome, ""); err != nil {
		return h, err
	}
	return h, conn.SetDeadline(time.Time{})
}

// readHello reads what a dialler says, and refuses what is no handshake of ours.
func readHello(r io.Reader) (hello, error) {
	head := make([]byte, len(magic)+1)
	if _, err := io.ReadFull(r, head); err != nil {
		return hello{}, fmt.Errorf("reading handshake: %w", err)
	}
	if !bytes.Equal(head[:len(magic)], magic) {
		return hello{}, &refusal{reason: "not a highbase raft connection"}
	}
	if v := head[len(magic)]; v != handshakeVersion {
		return hello{}, &refusal{reason: fmt.Sprintf("handshake version %d, this node speaks %d", v, handshakeVersion)}
	}
	body, err := readFrame(r)
	if err != nil {
		return hello{}, fmt.Errorf("reading handshake: %w", err)
	}
	var h hello
	if err := json.Unmarshal(body, &h); err != nil {
		return hello{}, &refusal{reason: "handshake is not readable"}
	}
	return h, nil
}

func answer(w io.Writer, status byte, reason string) error {
	if _, err := w.Write(append([]byte{status}, frame([]byte(reason))...)); err != nil {
		return fmt.Errorf("answering handshake: %w", err)
	}
	return nil
}

// frame puts a two-byte length before b, which is cut at maxHandshakeBytes.
func frame(b []byte) []byte {
	b = b[:min(len(b), maxHandshakeBytes)]
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(size[:])
	if n > maxHandshakeBytes {
		return nil, &refusal{reason: fmt.Sprintf("frame of %d bytes, at most %d", n, maxHandshakeBytes)}
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

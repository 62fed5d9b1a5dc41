package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// CommandVersion is the version of the encoding. A node that meets a newer one must stop: ignoring a command would fork the state.
const CommandVersion = 1

// ErrUnknownCommand is returned for a command this program cannot understand. The node must stop, never skip it.
var ErrUnknownCommand = errors.New("fsm: unknown command")

// ErrRefused is returned by Apply for a command that does not fit the state. The state is unchanged, on every node alike.
var ErrRefused = errors.New("refused")

// Command is one entry of the replicated log. Exactly one of the pointers is set.
type Command struct {
	Version int       `json:"v"`
	At      time.Time `json:"at"` // proposer's wall clock: for history and the restart budget only

	Bootstrap  *Bootstrap  `json:"bootstrap,omitempty"`
	Begin      *Begin      `json:"begin,omitempty"`
	Fence      *Fence      `json:"fence,omitempty"`
	Promote    *Promote    `json:"promote,omitempty"`
	Settle     *Settle     `json:"settle,omitempty"`
	Restart    *Restart    `json:"restart,omitempty"`
	Restarted  *Restarted  `json:"restarted,omitempty"`
	Switchover *Switchover `json:"switchover,omitempty"`
	Chain      *Chain      `json:"chain,omitempty"`
	Release    *Release    `json:"release,omitempty"`
	Rollback   *Rollback   `json:"rollback,omitempty"`
	Recount    *Recount    `json:"recount,omitempty"`
	Grow       *Grow       `json:"grow,omitempty"`
	Intend     *Intend     `json:"intend,omitempty"`
	Complete   *Complete   `json:"complete,omitempty"`
	Abandon    *Abandon    `json:"abandon,omitempty"`
	AcceptLoss *AcceptLoss `json:"accept_loss,omitempty"`
	SetPause   *SetPause   `json:"set_pause,omitempty"`
	Rebuild    *Rebuild    `json:"rebuild,omitempty"`
	Rebuilt    *Rebuilt    `json:"rebuilt,omitempty"`
}

// Bootstrap makes the cluster, once. It names the first primary.
type Bootstrap struct {
	ClusterID string   `json:"cluster_id"`
	Cluster   string   `json:"cluster"`
	Server    string   `json:"server"`
	Members   []Member `json:"members"`
	Settings  Settings `json:"settings"`
	Primary   NodeID   `json:"primary"`
	Actor     string   `json:"actor"`
}

// Begin ends the current epoch: from here no lease of it is renewed, and the next number belongs to whoever is promoted.
type Begin struct {
	Kind    Kind   `json:"kind"`
	Epoch   uint64 `json:"epoch"` // the epoch that ends (compare-and-swap)
	OpID    uint64 `json:"op_id"` // the operation it supersedes, 0 for none (compare-and-swap)
	Cause   string `json:"cause"`
	Actor   string `json:"actor"`
	Exclude NodeID `json:"exclude,omitempty"` // candidate that could not finish
	Lossy   bool   `json:"lossy,omitempty"`   // an operator accepts that acknowledged writes may be lost
	To      NodeID `json:"to,omitempty"`      // whom the operator wants, "" for the best; without a loss only among those that hold everything
	// Phases is how long the superseded operation's phases took.
	Phases []PhaseTime `json:"phases,omitempty"`
}

// Fence commits that the old primary can do no harm, with the evidence.
type Fence struct {
	OpID     uint64   `json:"op_id"`
	Epoch    uint64   `json:"epoch"`
	Evidence Evidence `json:"evidence"`
}

// Promote names the new primary. For a failover the evidence is committed already; a switchover carries the old primary's release.
type Promote struct {
	OpID     uint64       `json:"op_id"`
	Epoch    uint64       `json:"epoch"` // the state's epoch at this moment (compare-and-swap)
	To       NodeID       `json:"to"`
	Won      Won          `json:"won"`
	Position string       `json:"position"`        // what it must hold before it serves
	Fetch    NodeID       `json:"fetch,omitempty"` // frozen node that it catches up from first
	Extra    string       `json:"extra,omitempty"` // what that one holds beyond Position; "" when Position is what it holds
	Answers  []Answer     `json:"answers"`
	Release  *Answer      `json:"release,omitempty"`
	Members  []SyncMember `json:"members"` // the new sync set; empty, with no acks, when nobody else is in reach and min_replicas allows it
	Acks     int          `json:"acks"`
}

// Settle commits that the barrier of the new epoch was acknowledged.
type Settle struct {
	OpID   uint64      `json:"op_id"`
	Epoch  uint64      `json:"epoch"`
	Phases []PhaseTime `json:"phases"`
}

// Restart orders one attempt to start the primary's service again in place.
type Restart struct {
	Epoch   uint64 `json:"epoch"`
	OpID    uint64 `json:"op_id"` // the running restart, 0 for the first attempt
	Attempt int    `json:"attempt"`
	Cause   string `json:"cause"`
	Actor   string `json:"actor"`
}

// Restarted commits that the service serves again.
type Restarted struct {
	OpID   uint64      `json:"op_id"`
	Epoch  uint64      `json:"epoch"`
	Phases []PhaseTime `json:"phases"`
}

// Switchover begins a planned change.
type Switchover struct {
	Kind  Kind   `json:"kind"` // switchover or handover
	Epoch uint64 `json:"epoch"`
	From  NodeID `json:"from"`
	To    NodeID `json:"to"`
	Actor string `json:"actor"`
	Cause string `json:"cause"`
	// Busy is what becomes of clients in the middle of something long; Wait how long they are waited for, 0 as long as for anything else.
	Busy BusyPolicy    `json:"busy,omitempty"`
	Wait time.Duration `json:"wait,omitempty"`
}

// Chain has everybody outside the sync set replicate from the candidate: its first commit then finds them connected.
type Chain struct {
	OpID  uint64 `json:"op_id"`
	Epoch uint64 `json:"epoch"`
}

// Release asks the old primary to let go: the pause begins.
type Release struct {
	OpID  uint64 `json:"op_id"`
	Epoch uint64 `json:"epoch"`
}

// Rollback ends a switchover that has not promoted yet. The old primary may serve again once it has applied this.
type Rollback struct {
	OpID   uint64      `json:"op_id"`
	Epoch  uint64      `json:"epoch"`
	Reason string      `json:"reason"`
	Phases []PhaseTime `json:"phases,omitempty"`
}

// Recount commits that this incarnation of a member holds everything acknowledged so far: from here it counts in a freeze.
type Recount struct {
	Epoch       uint64 `json:"epoch"`
	Node        NodeID `json:"node"`
	Incarnation string `json:"incarnation"`
}

// SetPause pauses (By set) or resumes (By empty) automatic and planned operations.
type SetPause struct {
	Paused bool   `json:"paused"`
	By     string `json:"by"`
	Why    string `json:"why"`
}

// Name tells which command this is, for logs and errors.
func (c Command) Name() string { //nolint:gocyclo // a table: one case for each command
	switch {
	case c.Bootstrap != nil:
		return "bootstrap"
	case c.Begin != nil:
		return "begin"
	case c.Fence != nil:
		return "fence"
	case c.Promote != nil:
		return "promote"
	case c.Settle != nil:
		return "settle"
	case c.Restart != nil:
		return "restart"
	case c.Restarted != nil:
		return "restarted"
	case c.Switchover != nil:
		return "switchover"
	case c.Chain != nil:
		return "chain"
	case c.Release != nil:
		return "release"
	case c.Rollback != nil:
		return "rollback"
	case c.Recount != nil:
		return "recount"
	case c.SetPause != nil:
		return "pause"
	case c.Grow != nil:
		return "grow"
	case c.Intend != nil:
		return "intend"
	case c.Complete != nil:
		return "complete"
	case c.Abandon != nil:
		return "abandon"
	case c.AcceptLoss != nil:
		return "accept_loss"
	case c.Rebuild != nil:
		return "rebuild"
	case c.Rebuilt != nil:
		return "rebuilt"
	}
	return "empty"
}

// Encode gives the log form of a command.
func (c Command) Encode() ([]byte, error) {
	c.Version = CommandVersion
	return json.Marshal(c)
}

// DecodeCommand reads a log entry. Unknown fields and versions are ErrUnknownCommand: they come from a newer program.
func DecodeCommand(data []byte) (Command, error) {
	var c Command
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return Command{}, fmt.Errorf("%w: %w", ErrUnknownCommand, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Command{}, fmt.Errorf("%w: data after the command", ErrUnknownCommand)
	}
	if c.Version != CommandVersion {
		return Command{}, fmt.Errorf("%w: version %d, this program knows %d", ErrUnknownCommand, c.Version, CommandVersion)
	}
	if c.Name() == "empty" {
		return Command{}, fmt.Errorf("%w: no command in the entry", ErrUnknownCommand)
	}
	return c, nil
}

// EncodeState gives the snapshot form of a state.
func EncodeState(s State) ([]byte, error) {
	s.Format = Format
	return json.Marshal(s)
}

// DecodeState reads a snapshot. A newer format is refused.
func DecodeState(data []byte) (State, error) {
	var s State
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return State{}, fmt.Errorf("decoding snapshot: %w", err)
	}
	if s.Format != Format {
		return State{}, fmt.Errorf("decoding snapshot: format %d, this program knows %d", s.Format, Format)
	}
	return s, nil
}

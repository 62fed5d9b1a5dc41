package cluster

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/highbase/highbase/fsm"
)

// ErrNotRewindable is returned by PrepareRewind, wrapped with the reason, for a tail that recovery cannot roll back: it needs a human.
var ErrNotRewindable = errors.New("cannot be rewound")

// Prober tells what is true of this host's mysqld. Package probe implements it.
type Prober interface {
	// Server is the newest look at this host's mysqld, from memory; For says how long its state has lasted.
	Server() fsm.ServerStatus
	// Look takes a new look now, bounded by ctx, and returns it.
	Look(ctx context.Context) fsm.ServerStatus
	// Generation is the server's receive generation: while it stays the same, nothing received was forgotten. "" is unknown.
	Generation() string
	// BecameSource takes over, without asking the server, that a run of it is no replica any more and waits for so many acknowledgements. It
	// reports whether that is the run it knows; if not, a look is needed.
	BecameSource(run string, acks int) bool
	// BecameReadOnly takes over in the same way that read_only has returned, so that no commit waits any more.
	BecameReadOnly(run string) bool
	// Changed receives (capacity one, never blocking the prober) when the state may have changed: at once when mysqld dies.
	Changed() <-chan struct{}
	// Run keeps looking until ctx ends.
	Run(ctx context.Context)
}

// Database changes this host's mysqld. Every method is bounded by its context and may be called again after any failure.
type Database interface {
	Scheduler
	// SetReadOnly may hang behind a commit that waits for its acknowledgement; the caller has a next step.
	SetReadOnly(ctx context.Context) error
	// SetBarrierWritable lets only the manager's account write.
	SetBarrierWritable(ctx context.Context) error
	SetWritable(ctx context.Context) error
	// SourceSync makes every commit wait for acks acknowledgements, without a time limit. With 0 none waits; a writable server refuses that.
	SourceSync(ctx context.Context, acks int) error
	// SourceAsync switches semi-sync off on the source although it is writable and although commits wait: they are told success. It is legitimate
	// only after the log says that the cluster is degraded; the caller answers for that.
	SourceAsync(ctx context.Context) error
	// Follow makes this server a read-only replica, whose acknowledgements count or not. It applies what was received before it leaves another
	// source, or goes on with that (MySQL). After success nothing received was dropped by it, and without sync nothing is acknowledged.
	Follow(ctx context.Context, src Following) error
	// SyncOff ends this replica's acknowledgements: after success a look taken since then shows both the setting and the state off.
	SyncOff(ctx context.Context) error
	// CutReplica ends the replication of everybody at the address host from this source; after success nobody there acknowledges. A replica that
	// is not blocked is back at once.
	CutReplica(ctx context.Context, host string) error
	// CutThread is the same for one dump thread, by its number.
	CutThread(ctx context.Context, id uint64) error
	// Replicas lists who replicates from here.
	Replicas(ctx context.Context) ([]Replica, error)
	// FollowDelayed is Follow for a replica that an operator delays: draining would take as long as the delay, so what was received and is
	// not applied may be dropped. Only towards a source that holds everything acknowledged; the replica counts as another incarnation after it.
	FollowDelayed(ctx context.Context, src Following) error
	// Nudge commits a row of its own: its acknowledgement releases waiters whose own was lost.
	Nudge(ctx context.Context) error
	// Reconnect makes a replica's IO thread connect now. The SQL thread keeps running throughout, so nothing is forgotten.
	Reconnect(ctx context.Context) error
	// MendSettings puts back the settings that the look names as weakened, in the safe direction only.
	MendSettings(ctx context.Context) error
	// Freeze stops receiving, and only receiving, and says what was received. sever destroys the connection to the source.
	Freeze(ctx context.Context, sever func() error) (received string, err error)
	// EndReceiving is Freeze for a replica that has applied all that was and will be sent to it.
	EndReceiving(ctx context.Context, sever func() error) error
	// Drain returns when everything in position is applied.
	Drain(ctx context.Context, position string) error
	// StopReplication makes a drained replica a server of its own.
	StopReplication(ctx context.Context) error
	// Discard ends replication and drops what was received and is not applied: only for what nobody needs.
	Discard(ctx context.Context, sever func() error) error
	// Purged is what this server has executed and can send to nobody any more; "" where a position does not tell (MariaDB).
	Purged(ctx context.Context) (string, error)
	// BecomeSource is Freeze, Drain to the position and to all that was received, StopReplication and SourceSync in one, with as few statements as they
	// need: clients wait meanwhile. It refuses what each of them refuses. It returns the run of mysqld that became one, "" if that is not known.
	BecomeSource(ctx context.Context, p Promotion) (run string, err error)
	// ForgetSource removes what BecomeSource left of the source that was.
	ForgetSource(ctx context.Context) error
	// WriteBarrier writes this epoch's row and returns when its commit is acknowledged.
	WriteBarrier(ctx context.Context, epoch uint64, node string) error
	// LastEpoch is the newest epoch row.
	LastEpoch(ctx context.Context) (uint64, error)
	// KillClients ends client connections that do not wait for an acknowledgement.
	KillClients(ctx context.Context) (int, error)
	// Sessions lists the clients that are in the middle of something, the oldest first.
	Sessions(ctx context.Context) ([]fsm.Session, error)
	// BreakOff ends client connections that are not committing, on a server that may be writable. The gate is closed before.
	BreakOff(ctx context.Context) (int, error)
	// Position is everything executed here.
	Position(ctx context.Context) (string, error)
	// Written is everything in the binary log, what waits for its acknowledgement too: whatever was acknowledged before the call is in it.
	Written(ctx context.Context) (string, error)
	// History is what tells a branch from a prefix: PrepareRewind of another node takes it.
	History(ctx context.Context) (string, error)
	// Contains tells whether this server's history holds position.
	Contains(ctx context.Context, position string) (bool, error)
	// PrepareRewind judges, with mysqld stopped or stopping for good, whether what this server has beyond a history can be rolled back at its
	// next start; it saves that tail to a file first. A tail that cannot be rolled back is ErrNotRewindable; any other error is worth another try.
	PrepareRewind(ctx context.Context, history string) (saved string, err error)
	// FinishRewind is called after a start with rewind.
	FinishRewind(ctx context.Context) error
}

// Following says whom a replica replicates from.
type Following struct {
	Host  string
	Port  uint16
	Sync  bool   // its acknowledgements count
	Epoch uint64 // that of the source: whoever has applied its barrier has behind it all that it wrote itself when it was primary
}

// Promotion says how a replica becomes a source.
type Promotion struct {
	Position string       // what it must hold
	Final    bool         // its source had let go at Position: nothing was or will be sent behind it, whole or in half
	Acks     int          // how many acknowledgements a commit waits for; 0: none
	Sever    func() error // destroys the connection to the source that was
}

// Replica is one replica that is connected to this host's mysqld.
type Replica struct {
	ID   uint64 // of its dump thread
	Host string // address, or a name where the server resolves names
	Port uint16 // of the client's end of the connection, 0 when not shown
}

// Inbound is a connection to this host's mysqld, and how many bytes have arrived over it.
type Inbound struct {
	Remote   netip.AddrPort
	Received uint64
}

// Service starts and stops this host's mysqld. Nothing else may.
type Service interface {
	// Start starts mysqld read-only and not replicating, and returns when it answers or ctx ends. rewind lets its recovery roll back what was
	// only prepared: for this one start.
	Start(ctx context.Context, rewind bool) error
	// Stop is the clean stop: never while a commit may wait for an acknowledgement.
	Stop(ctx context.Context) error
	// Kill is SIGKILL, and returns when the process and its lock on the data directory are gone.
	Kill(ctx context.Context) error
}

// Address tells where an address stands on this node.
type Address struct {
	IP            netip.Addr
	Held          bool
	Conflicts     uint64
	Repairs       uint64
	Announcements uint64
}

// Addresser owns the virtual addresses and the kernel's lease gate on this host. Package vip implements it. Instants are CLOCK_BOOTTIME.
type Addresser interface {
	// KernelGate is false when the gate rests on this process alone: a weaker guarantee.
	KernelGate() bool
	// Open lets clients through until deadline, and Renew extends a gate that is still open; neither revives one that has closed.
	Open(deadline time.Duration) error
	Renew(deadline time.Duration) error
	Close() error
	// Remaining is how long the gate stays open by itself.
	Remaining() (time.Duration, error)
	// SetHeld is the wanted state of the addresses: idempotent, repaired while held, announced on every change.
	SetHeld(ctx context.Context, held bool) error
	Announce()
	// Insist repeats announcements quickly while an old holder may still be alive.
	Insist(on bool)
	// Sever destroys the clients' sockets at the addresses.
	Sever() (int, error)
	// SeverPeer destroys the sockets of replication traffic with a host.
	SeverPeer(host netip.Addr) (int, error)
	// Inbound lists the connections to this host's mysqld.
	Inbound() ([]Inbound, error)
	// GatePort puts the server's port on all of this host's own addresses behind the gate too, for everybody but the other nodes: at once, so
	// without a lease connections are reset. It lasts until it is taken back, over restarts of hbd and clean stops.
	GatePort(on bool) error
	// PortGated tells whether the kernel has it so: false also when that cannot be told.
	PortGated() bool
	// Block answers replication traffic with a host by resets, both ways, until Unblock, over restarts of hbd and clean stops.
	Block(host netip.Addr) error
	Unblock(host netip.Addr) error
	Blocked() ([]netip.Addr, error)
	// Addresses tells where each address stands.
	Addresses() []Address
	// OnForeignClaim is called when another MAC claims an address.
	OnForeignClaim(func(ip netip.Addr))
	// Destroy takes everything off this host: clean stop only.
	Destroy(ctx context.Context) error
}

// Connection is a client's TCP connection to a virtual address.
type Connection struct {
	Local, Remote netip.AddrPort // the address with the server's port; the client
}

// Clients knows the clients' connections to the addresses. Package vip implements it.
type Clients interface {
	// Accepted counts the connections that this host has taken: while it stays the same there is no new one. It costs next to nothing.
	Accepted() (uint64, error)
	// Connections lists those of this host, in no order.
	Connections() ([]Connection, error)
	// Tickle makes the clients of connections that another host had find out that they are dead, and says how many were provoked. The gate must be
	// open and the addresses held. Connections that live are not harmed. It takes seconds: the attempts are repeated.
	Tickle(ctx context.Context, of []Connection) (provoked int, err error)
}

// Fencer is the external fence, such as a power switch. It may be nil.
type Fencer interface {
	// Fence returns nil only when the node is certainly off.
	Fence(ctx context.Context, node fsm.NodeID) error
}

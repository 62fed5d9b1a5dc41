package raftnode

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/highbase/highbase/cluster/identity"
)

const (
	// storeFile holds the log, the term and the vote. Changing the name makes a node forget them.
	storeFile = "raft.db"
	// storeLockTimeout bounds the wait for another process that has the store open; bbolt's default is
	// to wait for ever, silently.
	storeLockTimeout = 2 * time.Second
	// keptSnapshots is how many snapshots stay: the latest, and one before it in case it cannot be read.
	keptSnapshots = 2
)

// keyInstance is where the store itself keeps its instance.
var keyInstance = []byte("HighbaseInstance")

// store is what a member keeps on disk.
type store struct {
	bolt     *raftboltdb.BoltStore
	snaps    *raft.FileSnapshotStore
	instance string
}

// openStore opens the store in dir and checks that it is whole and belongs to the instance beside it.
func openStore(dir string, logger *bridge) (*store, error) {
	in, err := identity.OpenInstance(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, storeFile)
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{
		Timeout: storeLockTimeout,
		// The free list is rebuilt at start instead of being written with every commit: less to fsync.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	}})
	if err != nil {
		return nil, fmt.Errorf("opening raft store %s: %w", path, err)
	}
	s := &store{bolt: bolt, instance: in.ID}
	if err := s.prepare(dir, in, logger); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return s, nil
}

func (s *store) prepare(dir string, in identity.Instance, logger *bridge) error {
	if err := s.seal(dir, in); err != nil {
		return err
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, logger)
	if err != nil {
		return fmt.Errorf("opening raft snapshots: %w", err)
	}
	s.snaps = snaps
	return s.checkWhole()
}

// seal ties the instance file and the store together. The store gets the id first and the file is marked
// after, so a crash in between is repeated, while a store that vanished under a marked file is noticed.
func (s *store) seal(dir string, in identity.Instance) error {
	have, err := s.bolt.Get(keyInstance)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return fmt.Errorf("reading instance from raft store: %w", err)
	}
	if string(have) == in.ID {
		return identity.SealInstance(dir)
	}
	if len(have) > 0 {
		return fmt.Errorf("%w: the store belongs to %s, the instance file says %s", ErrStoreWiped, have, in.ID)
	}
	if in.Sealed {
		return fmt.Errorf("%w: the store in %s is empty; if its loss is accepted remove the whole directory, "+
			"and the node can be added again as a new instance", ErrStoreWiped, dir)
	}
	if last, err := s.bolt.LastIndex(); err != nil || last > 0 {
		return errors.Join(fmt.Errorf("%w: it holds %d entries and no instance", ErrStoreWiped, last), err)
	}
	if err := s.bolt.Set(keyInstance, []byte(in.ID)); err != nil {
		return fmt.Errorf("writing instance to raft store: %w", err)
	}
	// The name of the database file must be durable too before the seal promises that it is there.
	if err := syncDir(dir); err != nil {
		return err
	}
	return identity.SealInstance(dir)
}

// checkWhole refuses a log whose beginning is in no snapshot: replaying the rest onto an empty state
// would give a wrong one without any error.
func (s *store) checkWhole() error {
	first, err := s.bolt.FirstIndex()
	if err != nil {
		return fmt.Errorf("reading raft store: %w", err)
	}
	snaps, err := s.snaps.List()
	if err != nil {
		return fmt.Errorf("listing raft snapshots: %w", err)
	}
	var covered uint64
	if len(snaps) > 0 {
		covered = snaps[0].Index
	}
	if first > covered+1 {
		return fmt.Errorf("%w: it starts at entry %d, the newest snapshot ends at %d", ErrStoreIncomplete, first, covered)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}

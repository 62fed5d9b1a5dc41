package identity

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrOtherCluster is returned when a node that belongs to one cluster is told to belong to another.
// The way out is a new data directory, never a new id.
var ErrOtherCluster = errors.New("this node belongs to another cluster")

// Names of the files inside the data directory. Changing them makes a node forget who it is.
const (
	clusterFile  = "cluster.json"
	instanceFile = "instance.json"
)

// idBytes is the length of random ids: 64 bits, so that no two installations meet by chance, and short
// enough to be read aloud.
const idBytes = 8

// Instance is the identity of one Raft store of a node.
type Instance struct {
	// ID is random hexadecimal, made when the Raft directory was first used.
	ID string `json:"id"`
	// Sealed is set once the Raft store itself carries ID. A sealed instance beside a store that does
	// not know it means that the store was wiped and the instance file was not.
	Sealed bool `json:"sealed"`
}

type clusterRecord struct {
	ID string `json:"id"`
}

// NewID returns a fresh random id, for clusters and instances.
func NewID() string {
	var b [idBytes]byte
	// crypto/rand.Read never fails: since Go 1.24 it ends the program instead of returning an error.
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// OpenInstance returns the instance kept in raftDir, making the directory and the instance when neither
// exists yet. An instance file that cannot be read is ErrCorrupt.
func OpenInstance(raftDir string) (Instance, error) {
	if err := os.MkdirAll(raftDir, 0o700); err != nil {
		return Instance{}, fmt.Errorf("making raft directory: %w", err)
	}
	path := filepath.Join(raftDir, instanceFile)
	var in Instance
	found, err := readJSON(path, &in)
	if err != nil {
		return Instance{}, err
	}
	if found && in.ID == "" {
		return Instance{}, fmt.Errorf("reading %s: %w: empty id", path, ErrCorrupt)
	}
	if found {
		return in, nil
	}
	in = Instance{ID: NewID()}
	if err := writeJSON(path, in); err != nil {
		return Instance{}, err
	}
	// The directory itself may be new: its own name has to survive too.
	return in, syncDir(filepath.Dir(filepath.Clean(raftDir)))
}

// SealInstance records that the Raft store in raftDir carries the instance's id from now on.
func SealInstance(raftDir string) error {
	in, err := OpenInstance(raftDir)
	if err != nil {
		return err
	}
	if in.Sealed {
		return nil
	}
	in.Sealed = true
	return writeJSON(filepath.Join(raftDir, instanceFile), in)
}

// ClusterID returns the id of the cluster this node belongs to, "" when it has not joined any.
func ClusterID(dataDir string) (string, error) {
	path := filepath.Join(dataDir, clusterFile)
	var rec clusterRecord
	found, err := readJSON(path, &rec)
	if err != nil {
		return "", err
	}
	if found && rec.ID == "" {
		return "", fmt.Errorf("reading %s: %w: empty id", path, ErrCorrupt)
	}
	return rec.ID, nil
}

// SetClusterID records the cluster for good. Setting the same id again is harmless; another one is
// ErrOtherCluster. The caller holds the lock of the directory.
func SetClusterID(dataDir, id string) error {
	if id == "" {
		return errors.New("setting cluster id: empty id")
	}
	have, err := ClusterID(dataDir)
	if err != nil {
		return err
	}
	switch have {
	case id:
		return nil
	case "":
		return writeJSON(filepath.Join(dataDir, clusterFile), clusterRecord{ID: id})
	default:
		return fmt.Errorf("setting cluster id %s: %w: it has %s", id, ErrOtherCluster, have)
	}
}

package cluster

import (
	"context"
	"errors"
	"io"

	"github.com/highbase/highbase/fsm"
)

// ErrNoRoom is returned by Receive, wrapped with the figures, when the disk cannot hold a copy: trying again does not help.
var ErrNoRoom = errors.New("no room for a copy")

// Rebuilder replaces this host's data by a copy of another's, and gives copies of its own. It decides nothing. Every method may be called again
// after any failure or crash of this program; what was done is on disk.
type Rebuilder interface {
	// Stage tells how far which rebuild has come: nothing, arriving (Receive has not ended), whole (Place is due), half (Place was begun and mysqld has
	// fetched nothing or a part; Place goes on, and Receive takes the order of another rebuild for the same), placing (neither the old data nor the copy
	// can be used, all of it is here, Place or Adopt is due), adopted (Finish is due).
	Stage() (RebuildStage, error)
	// Empty tells that this host has no data at all.
	Empty() (bool, error)
	// Donate begins a copy of this host's data. The stream ends with io.EOF only when the copy is complete and good. size is about how many bytes
	// it will have.
	Donate(ctx context.Context) (stream io.ReadCloser, size int64, err error)
	// HistoryAt is this host's history at a place of its binary log, for a copy that was made there.
	HistoryAt(ctx context.Context, file string, offset int64) (string, error)
	// Receive takes a copy in beside the data, which stays in use, and makes it ready.
	Receive(ctx context.Context, in Incoming) error
	// Place kills mysqld and puts a whole copy in the place of its data. There is no way back from its first step on. Where mysqld fetches the copy
	// itself, silent is called when it certainly acknowledges nothing any more, nor will by itself: the donor may be the primary, which keeps it
	// out until that is known.
	Place(ctx context.Context, silent func()) error
	// Redirect names another donor to a copy that mysqld fetches itself, as long as it is not there.
	Redirect(host string, port uint16) error
	// Adopt starts mysqld on the copy, read-only and not replicating, and gives it the history of the copy.
	Adopt(ctx context.Context) error
	// Finish removes the old data. Only when the copy has proven good, or the old data is of no use.
	Finish() error
	// Progress is how much of a copy has arrived that comes past the stream; ok only while one does.
	Progress(ctx context.Context) (received, size int64, ok bool)
	// SaveErrant writes what this host's binary logs hold beyond a history to a file, and lists it. No transactions: no file.
	SaveErrant(ctx context.Context, history string) (file string, gtids []string, err error)
}

// RebuildStage is how far a rebuild has come on disk.
type RebuildStage struct {
	ID    string
	Copy  fsm.CopyStage
	Whole bool // the copy has arrived and is ready: Place is due
}

// Incoming is one copy on its way.
type Incoming struct {
	ID        string
	Size      int64
	Stream    io.Reader
	HistoryAt func(ctx context.Context, file string, offset int64) (string, error)
	// Host and Port are the donor's mysqld, Rate the bytes per second it shall give at most, 0 for no limit: for a server that copies by itself,
	// whose donor's stream is empty.
	Host string
	Port uint16
	Rate int64
}

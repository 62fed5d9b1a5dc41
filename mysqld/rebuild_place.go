package mysqld

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// kept are files beside the data that are the host's, not the data's: they are
// not in a backup and stay where they are.
var kept = []string{"*.pem", "*.key", "*.crt", "*.cnf", "*.flag", "*.err", "lost+found", workName}

// Place kills the server and puts the copy where its data was; the old data is
// moved aside. From its first step on only Place itself may go on: the marker
// says so, and the server must not be started before.
//
// silent, if not nil, is called where the copy is fetched only now (MySQL's CLONE),
// once this server neither replicates nor acknowledges nor will by itself: a
// donor that kept it out for that may let it in.
func (r *Rebuild) Place(ctx context.Context, silent func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.mark()
	if err != nil {
		return err
	}
	switch m.Stage {
	case RebuildPrepared, RebuildPlacing, RebuildEntering:
	case RebuildPlaced, RebuildAdopted:
		return nil
	default:
		return fmt.Errorf("placing a copy: %w: the rebuild is at %q", ErrStage, m.Stage)
	}
	if r.clones() {
		return r.placeClone(ctx, m, silent)
	}
	// Killed, not stopped: what it would still do is thrown away anyway, and a
	// clean stop would tell waiting clients success.
	if err := r.cfg.Service.Kill(ctx); err != nil {
		return fmt.Errorf("killing the server before its data is replaced: %w", err)
	}
	if err := r.place(m); err != nil {
		return fmt.Errorf("placing a copy: %w", err)
	}
	return nil
}

// place moves names only: each move is done or not, whenever it is cut off.
func (r *Rebuild) place(m rebuildMark) error {
	if m.Stage == RebuildPrepared {
		m.Stage = RebuildPlacing
		if err := r.setMark(m); err != nil {
			return err
		}
	}
	if m.Stage == RebuildPlacing {
		if err := os.Mkdir(r.outgoing(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := moveAll(r.cfg.DataDir, r.outgoing(), stay); err != nil {
			return err
		}
		m.Stage = RebuildEntering
		if err := r.setMark(m); err != nil {
			return err
		}
	}
	if err := moveAll(r.incoming(), r.cfg.DataDir, replace); err != nil {
		return err
	}
	m.Stage = RebuildPlaced
	return r.setMark(m)
}

// taken says what moveAll does with a name that is taken at the other end: only
// something that was not to be started can have made it since.
type taken int

const (
	stay    taken = iota // on the way out: what came later is removed, the host's own files stay
	replace              // on the way in: the copy replaces it
)

// moveAll moves the entries of one directory to another, durably.
func moveAll(from, to string, how taken) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if how == stay && slices.ContainsFunc(kept, func(pattern string) bool { ok, _ := filepath.Match(pattern, e.Name()); return ok }) {
			continue
		}
		if err := moveOne(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), how); err != nil {
			return err
		}
	}
	return errors.Join(syncDir(from), syncDir(to))
}

func moveOne(source, target string, how taken) error {
	if _, err := os.Lstat(target); err == nil {
		if how == stay {
			return os.RemoveAll(source)
		}
		if err := os.RemoveAll(target); err != nil {
			return err
		}
	}
	return os.Rename(source, target)
}

// Finish removes the old data. Only when the server has been seen to follow.
func (r *Rebuild) Finish() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.mark()
	if err != nil {
		return err
	}
	if m.Stage != RebuildAdopted && m.Stage != RebuildNone {
		return fmt.Errorf("removing the old data: %w: the rebuild is at %q", ErrStage, m.Stage)
	}
	return r.clear()
}

// Abandon removes a copy that will not be used. Once it is being put in its place
// that is not possible any more (ErrStage).
func (r *Rebuild) Abandon() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.mark()
	if err != nil {
		return err
	}
	switch m.Stage {
	case RebuildNone, RebuildReceiving, RebuildPrepared:
		return r.clear()
	default:
		return fmt.Errorf("abandoning a rebuild: %w: it is at %q", ErrStage, m.Stage)
	}
}

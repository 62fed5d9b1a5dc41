package mysqld

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// eventMariaDBGTIDList begins every binary log of MariaDB: the last transaction
// of each writer in all the files before (log_event.h, Gtid_list_log_event).
const eventMariaDBGTIDList = 163

// writer is one server's transactions in one domain.
type writer struct{ domain, server uint32 }

// writerState is gtid_binlog_state: the last transaction of each writer, and of
// each domain.
type writerState struct {
	last    map[writer]uint64
	latest  map[uint32]writer
	writers []writer // in the order of their appearance
}

// StateAt reads what gtid_binlog_state was at a place in one of this server's
// binary logs: that of a copy of its data. MariaDB only; the latest transaction
// of each domain stands last.
func (s *Server) StateAt(ctx context.Context, file string, offset int64) (string, error) {
	st, err := s.Status(ctx)
	if err != nil {
		return "", err
	}
	if file != filepath.Base(file) {
		return "", fmt.Errorf("reading the history at a place: %q is no name of a binary log", file)
	}
	index := st.BinlogIndex
	if !filepath.IsAbs(index) {
		index = filepath.Join(st.DataDir, index)
	}
	files, err := binlogFiles(index)
	if err != nil {
		return "", err
	}
	for _, path := range files {
		if filepath.Base(path) == file {
			return stateAt(path, offset)
		}
	}
	return "", fmt.Errorf("reading the history at %s:%d: there is no such binary log any more", file, offset)
}

// stateAt reads one file up to offset.
func stateAt(path string, offset int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading a binary log: %w", err)
	}
	defer f.Close()
	state := writerState{last: map[writer]uint64{}, latest: map[uint32]writer{}}
	reader, err := newBinlogReader(io.LimitReader(f, offset))
	if err != nil {
		return "", err
	}
	listed := false
	for {
		e, err := reader.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("reading %s up to %d: %w", path, offset, err)
		}
		switch e.Type {
		case eventMariaDBGTIDList:
			listed = true
			err = state.list(e)
		case eventMariaDBGTID:
			if len(e.Body) < 13 {
				return "", fmt.Errorf("%w: GTID event at %d has %d bytes", ErrBinlog, e.Offset, len(e.Body))
			}
			state.note(writer{binary.LittleEndian.Uint32(e.Body[8:]), e.ServerID}, binary.LittleEndian.Uint64(e.Body))
		}
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", path, err)
		}
	}
	if reader.offset != offset || !listed {
		return "", fmt.Errorf("%w: %s has no event that ends at %d, or no list of what was before", ErrBinlog, path, offset)
	}
	return state.String(), nil
}

// list takes in a Gtid_list event: a count (28 bits) and domain (4), server (4)
// and sequence (8) of each entry; a domain's latest comes last.
func (s *writerState) list(e event) error {
	const entry = 16
	if len(e.Body) < 4 {
		return fmt.Errorf("%w: list of GTIDs at %d has %d bytes", ErrBinlog, e.Offset, len(e.Body))
	}
	count := int(binary.LittleEndian.Uint32(e.Body) & (1<<28 - 1))
	if len(e.Body) < 4+count*entry {
		return fmt.Errorf("%w: list of %d GTIDs at %d has %d bytes", ErrBinlog, count, e.Offset, len(e.Body))
	}
	for i := range count {
		b := e.Body[4+i*entry:]
		s.note(writer{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])}, binary.LittleEndian.Uint64(b[8:]))
	}
	return nil
}

func (s *writerState) note(w writer, sequence uint64) {
	if _, known := s.last[w]; !known {
		s.writers = append(s.writers, w)
	}
	s.last[w], s.latest[w.domain] = sequence, w
}

// String names the latest transaction of each domain after the others.
func (s *writerState) String() string {
	var earlier, latest []string
	for _, w := range s.writers {
		text := fmt.Sprintf("%d-%d-%d", w.domain, w.server, s.last[w])
		if s.latest[w.domain] == w {
			latest = append(latest, text)
		} else {
			earlier = append(earlier, text)
		}
	}
	return strings.Join(append(earlier, latest...), ",")
}

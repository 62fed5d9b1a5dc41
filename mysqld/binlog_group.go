package mysqld

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/highbase/highbase/fsm/gtid"
)

// GroupKind says what one transaction of a binary log does.
type GroupKind string

// The kinds told apart: only rows can be rolled back on every server.
const (
	// GroupRows changes rows of transactional tables and nothing else.
	GroupRows GroupKind = "rows"
	// GroupDDL changes the schema, or accounts.
	GroupDDL GroupKind = "ddl"
	// GroupXA is part of a distributed transaction.
	GroupXA GroupKind = "xa"
	// GroupOther holds statements, or tables that are not transactional, or
	// what this reader does not know.
	GroupOther GroupKind = "other"
)

// Group is one transaction of a binary or relay log.
type Group struct {
	// GTID in the server's text form; itself a position.
	GTID string
	Kind GroupKind
	// File, Offset and End are where it stands, in bytes. In relay logs it may
	// end in a later file; End then is an offset in that one.
	File        string
	Offset, End int64
	// Complete: its last event is there.
	Complete bool

	set gtid.Set
}

// MariaDB's flags of a GTID event (log_event.h, Gtid_log_event).
const (
	mariadbStandalone    = 1
	mariadbTransactional = 4
	mariadbDDL           = 32
	mariadbPreparedXA    = 64
	mariadbCompletedXA   = 128
)

// groupScan collects the groups of one file or several. standalone: the open group is one
// event without a commit.
type groupScan struct {
	flavor     gtid.Flavor
	file       string
	groups     []Group
	open       bool
	standalone bool
	stopped    bool // the last event says that the server was stopped in good order
}

// scanFile reads all groups of one file; torn is the number of bytes at its end
// that are no whole event.
func scanFile(path string, flavor gtid.Flavor) (s groupScan, torn int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, 0, fmt.Errorf("reading a binary log: %w", err)
	}
	defer f.Close()
	s.flavor = flavor
	end, err := s.scan(f, path)
	if errors.Is(err, errTorn) {
		info, statErr := f.Stat()
		if statErr != nil {
			return s, 0, fmt.Errorf("reading a binary log: %w", statErr)
		}
		return s, info.Size() - end, nil
	}
	if err != nil {
		return s, 0, fmt.Errorf("reading %s: %w", path, err)
	}
	return s, 0, nil
}

// scan reads one more file; end is where its last whole event ends. The error
// is errTorn if more bytes follow, nil at a clean end.
func (s *groupScan) scan(r io.Reader, path string) (end int64, err error) {
	reader, err := newBinlogReader(r)
	if err != nil {
		return 0, err
	}
	s.file = path
	for {
		e, err := reader.next()
		if errors.Is(err, io.EOF) {
			return reader.offset, nil
		}
		if err != nil {
			return reader.offset, err
		}
		if err := s.add(e); err != nil {
			return reader.offset, err
		}
	}
}

// readRelay reads the groups of all relay logs of an index, in order. Unlike in
// a binary log a group may go on in the next file: a receiver that reconnects
// within a transaction skips what it has and writes on. Bytes that are no whole
// event are passed over.
func readRelay(index string, flavor gtid.Flavor) ([]Group, error) {
	files, err := binlogFiles(index)
	if err != nil {
		return nil, err
	}
	s := groupScan{flavor: flavor}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("reading a relay log: %w", err)
		}
		_, err = s.scan(f, path)
		f.Close() // only read from
		if err != nil && !errors.Is(err, errTorn) {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	return s.groups, nil
}

// add takes one event.
func (s *groupScan) add(e event) error {
	s.stopped = e.Type == eventStop
	switch e.Type {
	case eventMariaDBGTID, eventMySQLGTID, eventMySQLTaggedGTID:
		return s.begin(e)
	}
	if !s.open {
		return nil
	}
	g := &s.groups[len(s.groups)-1]
	switch e.Type {
	case eventQuery:
		text, err := queryText(e)
		if err != nil {
			return err
		}
		g.End = e.End
		s.query(g, text)
	case eventMariaDBQueryZ: // a compressed statement: not rows
		g.End = e.End
		g.worsen(GroupOther)
		s.endStandalone(g)
	case eventXAPrepare:
		g.worsen(GroupXA)
		s.end(g, e)
	case eventMySQLPayload: // a whole transaction, compressed: it may as well be an XA PREPARE
		g.worsen(GroupOther)
		s.end(g, e)
	case eventXID:
		s.end(g, e)
	case eventRotate, eventFormat: // bookkeeping between events, in relay logs
	default:
		g.End = e.End
	}
	return nil
}

// end closes the open group with its last event.
func (s *groupScan) end(g *Group, e event) {
	g.End, g.Complete, s.open = e.End, true, false
}

// endStandalone closes a group of one event.
func (s *groupScan) endStandalone(g *Group) {
	if s.standalone {
		g.Complete, s.open = true, false
	}
}

// query judges one statement inside a group.
func (s *groupScan) query(g *Group, text string) {
	words := strings.Fields(strings.ToUpper(text[:min(len(text), 64)]))
	first := ""
	if len(words) > 0 {
		first = strings.TrimSuffix(words[0], ";")
	}
	switch {
	case first == "BEGIN", first == "SAVEPOINT", first == "ROLLBACK" && len(words) > 1:
		s.standalone = false
		return
	case first == "COMMIT", first == "ROLLBACK":
		// An engine without transactions ends with a statement, not an XID.
		g.worsen(GroupOther)
		g.Complete, s.open = true, false
		return
	case first == "XA":
		// On MySQL XA START opens a group that an XA PREPARE event ends.
		g.worsen(GroupXA)
		s.standalone = s.standalone && !(len(words) > 1 && words[1] == "START")
	case s.flavor == gtid.MySQL && (s.standalone || first == "CREATE"): // CREATE in a transaction: CREATE ... SELECT
		g.worsen(GroupDDL)
	case g.Kind == GroupRows:
		g.worsen(GroupOther)
	}
	s.endStandalone(g)
}

// worsen lowers the kind: what is once not rows never is again.
func (g *Group) worsen(kind GroupKind) {
	if g.Kind == GroupRows {
		g.Kind = kind
	}
}

// begin opens a group.
func (s *groupScan) begin(e event) error {
	g := Group{File: s.file, Offset: e.Offset, End: e.End, Kind: GroupRows}
	var err error
	switch e.Type {
	case eventMariaDBGTID:
		err = s.beginMariaDB(e, &g)
	case eventMySQLGTID:
		err = s.beginMySQL(e, &g)
	default:
		err = fmt.Errorf("%w: tagged GTID at %d, which this reader does not know", ErrBinlog, e.Offset)
	}
	if err != nil {
		return err
	}
	if g.set, err = gtid.Parse(s.flavor, g.GTID); err != nil {
		return fmt.Errorf("%w: GTID event at %d: %w", ErrBinlog, e.Offset, err)
	}
	s.groups, s.open = append(s.groups, g), true
	return nil
}

// beginMariaDB reads sequence (8), domain (4) and flags (1).
func (s *groupScan) beginMariaDB(e event, g *Group) error {
	if s.flavor != gtid.MariaDB {
		return fmt.Errorf("%w: MariaDB's GTID event at %d", ErrBinlog, e.Offset)
	}
	if len(e.Body) < 13 {
		return fmt.Errorf("%w: GTID event at %d has %d bytes", ErrBinlog, e.Offset, len(e.Body))
	}
	sequence, domain, flags := binary.LittleEndian.Uint64(e.Body), binary.LittleEndian.Uint32(e.Body[8:]), e.Body[12]
	g.GTID = fmt.Sprintf("%d-%d-%d", domain, e.ServerID, sequence)
	s.standalone = flags&mariadbStandalone != 0
	switch {
	case flags&(mariadbPreparedXA|mariadbCompletedXA) != 0:
		g.Kind = GroupXA
	case flags&mariadbDDL != 0:
		g.Kind = GroupDDL
	case flags&mariadbStandalone != 0, flags&mariadbTransactional == 0:
		g.Kind = GroupOther
	}
	return nil
}

// beginMySQL reads flags (1), source uuid (16) and number (8).
func (s *groupScan) beginMySQL(e event, g *Group) error {
	if s.flavor != gtid.MySQL {
		return fmt.Errorf("%w: MySQL's GTID event at %d", ErrBinlog, e.Offset)
	}
	if len(e.Body) < 25 {
		return fmt.Errorf("%w: GTID event at %d has %d bytes", ErrBinlog, e.Offset, len(e.Body))
	}
	id := hex.EncodeToString(e.Body[1:17])
	number := strconv.FormatUint(binary.LittleEndian.Uint64(e.Body[17:]), 10)
	g.GTID = strings.Join([]string{id[:8], id[8:12], id[12:16], id[16:20], id[20:]}, "-") + ":" + number
	s.standalone = true // until a BEGIN says otherwise
	return nil
}

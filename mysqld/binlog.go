package mysqld

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Event types read here. Sources: MariaDB log_event.h (10.11), MySQL
// binlog_event.h (8.4). All other types are skipped by their length.
const (
	eventQuery            = 2
	eventStop             = 3
	eventRotate           = 4
	eventFormat           = 15
	eventXID              = 16
	eventTableMap         = 19
	eventMySQLGTID        = 33
	eventXAPrepare        = 38
	eventMySQLPayload     = 40
	eventMySQLTaggedGTID  = 42
	eventMariaDBGTID      = 162
	eventMariaDBEncrypted = 164
	eventMariaDBQueryZ    = 165
)

const (
	binlogMagic     = "\xfebin"
	encryptedMagic  = "\xfdbin"
	eventHeaderSize = 19
	// maxEventSize bounds one event: the servers' own limit is 1 GB.
	maxEventSize = 1 << 30
	// maxBodyKept is how much of an event's body is read into memory; the rest
	// is skipped. What is looked at stands at the beginning.
	maxBodyKept = 64 << 10
	checksumOff = 0
	// checksumNone is a format description without the field (before 5.6).
	checksumCRC32 = 1
)

// Errors of the reader.
var (
	// ErrBinlog is returned for a file that is not a binary log, or damaged.
	ErrBinlog = errors.New("mysqld: not a readable binary log")
	// errTorn is returned for a last event that is not whole: the server died
	// while writing it. Recovery drops it.
	errTorn = errors.New("the last event is not whole")
)

// event is one event of a binary log.
type event struct {
	Type     byte
	ServerID uint32
	Flags    uint16
	Offset   int64 // where the header begins in the file
	End      int64 // where the next event begins
	Body     []byte
	// BodySize is the whole body's length without checksum; Body may be less.
	BodySize int64
}

// binlogReader reads the events of one file in order.
type binlogReader struct {
	in       *bufio.Reader
	offset   int64
	checksum bool
	started  bool
}

// newBinlogReader checks the magic number.
func newBinlogReader(r io.Reader) (*binlogReader, error) {
	b := &binlogReader{in: bufio.NewReaderSize(r, 1<<16)}
	var magic [4]byte
	if _, err := io.ReadFull(b.in, magic[:]); err != nil {
		return nil, fmt.Errorf("%w: no header: %w", ErrBinlog, err)
	}
	switch string(magic[:]) {
	case binlogMagic:
	case encryptedMagic:
		return nil, fmt.Errorf("%w: it is encrypted", ErrBinlog)
	default:
		return nil, fmt.Errorf("%w: begins with %x", ErrBinlog, magic)
	}
	b.offset = int64(len(magic))
	return b, nil
}

// next returns the next event; io.EOF after the last whole one, errTorn (with
// the event's offset in the reader) if bytes follow that are no whole event.
func (b *binlogReader) next() (event, error) {
	var header [eventHeaderSize]byte
	n, err := io.ReadFull(b.in, header[:])
	if errors.Is(err, io.EOF) {
		return event{}, io.EOF
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return event{}, fmt.Errorf("%w: %d bytes at %d", errTorn, n, b.offset)
	}
	if err != nil {
		return event{}, fmt.Errorf("reading a binary log at %d: %w", b.offset, err)
	}
	size := int64(binary.LittleEndian.Uint32(header[9:]))
	if size < eventHeaderSize || size > maxEventSize {
		return event{}, fmt.Errorf("%w: event of %d bytes at %d", ErrBinlog, size, b.offset)
	}
	e := event{
		Type: header[4], ServerID: binary.LittleEndian.Uint32(header[5:]), Flags: binary.LittleEndian.Uint16(header[17:]),
		Offset: b.offset, End: b.offset + size, BodySize: size - eventHeaderSize,
	}
	if err := b.readBody(&e); err != nil {
		return event{}, err
	}
	b.offset = e.End
	if err := b.interpret(&e); err != nil {
		return event{}, err
	}
	return e, nil
}

// readBody keeps the beginning of the body and skips the rest.
func (b *binlogReader) readBody(e *event) error {
	kept := min(e.BodySize, maxBodyKept)
	// Grown as it is read: the size field of a damaged file may promise 1 GB.
	body, err := io.ReadAll(io.LimitReader(b.in, kept))
	if err != nil {
		return fmt.Errorf("reading a binary log at %d: %w", e.Offset, err)
	}
	e.Body = body
	if int64(len(body)) < kept {
		return fmt.Errorf("%w: event of %d bytes at %d", errTorn, e.End-e.Offset, e.Offset)
	}
	skipped, err := io.CopyN(io.Discard, b.in, e.BodySize-kept)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: event of %d bytes at %d, %d skipped", errTorn, e.End-e.Offset, e.Offset, skipped)
	}
	if err != nil {
		return fmt.Errorf("reading a binary log at %d: %w", e.Offset, err)
	}
	return nil
}

// interpret learns the format and takes the checksum off the body.
func (b *binlogReader) interpret(e *event) error {
	const checksumSize = 4
	switch {
	case e.Type == eventFormat:
		b.started = true
		alg, err := formatChecksum(e.Body)
		if err != nil {
			return fmt.Errorf("%w: format description at %d: %w", ErrBinlog, e.Offset, err)
		}
		b.checksum = alg == checksumCRC32
		return nil
	case !b.started:
		return fmt.Errorf("%w: event %d before the format description", ErrBinlog, e.Type)
	case e.Type == eventMariaDBEncrypted:
		return fmt.Errorf("%w: it is encrypted", ErrBinlog)
	case !b.checksum:
		return nil
	case e.BodySize < checksumSize:
		return fmt.Errorf("%w: event at %d is too short for its checksum", ErrBinlog, e.Offset)
	}
	e.BodySize -= checksumSize
	if int64(len(e.Body)) > e.BodySize {
		e.Body = e.Body[:e.BodySize]
	}
	return nil
}

// formatChecksum finds the checksum algorithm: the last byte before the format
// description's own checksum, which is always there since both servers' 5.6.
func formatChecksum(body []byte) (byte, error) {
	const fixed = 2 + 50 + 4 + 1 // version, server version, created, header length
	const tail = 1 + 4           // algorithm, checksum
	if len(body) < fixed+tail {
		return 0, fmt.Errorf("%d bytes", len(body))
	}
	alg := body[len(body)-tail]
	if alg != checksumOff && alg != checksumCRC32 {
		return 0, fmt.Errorf("checksum algorithm %d", alg)
	}
	return alg, nil
}

// queryText is the statement of a query event, at most what was kept of it.
func queryText(e event) (string, error) {
	const fixed = 4 + 4 + 1 + 2 + 2 // thread, time, schema length, error, variables length
	if len(e.Body) < fixed {
		return "", fmt.Errorf("%w: query event at %d has %d bytes", ErrBinlog, e.Offset, len(e.Body))
	}
	schema := int(e.Body[8])
	variables := int(binary.LittleEndian.Uint16(e.Body[11:]))
	start := fixed + variables + schema + 1 // the schema ends with a zero
	if start > len(e.Body) {
		return "", fmt.Errorf("%w: query event at %d ends inside its header", ErrBinlog, e.Offset)
	}
	return string(e.Body[start:]), nil
}

// binlogFiles reads an index file. Relative names stand beside the index, which
// is where both servers put them unless log_bin names another directory.
func binlogFiles(index string) ([]string, error) {
	raw, err := os.ReadFile(index)
	if err != nil {
		return nil, fmt.Errorf("reading the index of the binary logs: %w", err)
	}
	var files []string
	for line := range strings.Lines(string(raw)) {
		name := strings.TrimSpace(line)
		if name == "" {
			continue
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(index), name)
		}
		files = append(files, name)
	}
	return files, nil
}

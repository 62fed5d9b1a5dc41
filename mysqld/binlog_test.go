package mysqld

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/highbase/highbase/fsm/gtid"
)

// logFile builds a binary log by hand, without checksums.
type logFile struct{ bytes.Buffer }

func newLogFile() *logFile {
	f := &logFile{}
	f.WriteString(binlogMagic)
	format := make([]byte, 2+50+4+1+40)
	format[0] = 4
	f.event(eventFormat, 1, append(format, checksumOff, 0, 0, 0, 0))
	return f
}

func (f *logFile) event(kind byte, server uint32, body []byte) {
	header := make([]byte, eventHeaderSize)
	header[4] = kind
	binary.LittleEndian.PutUint32(header[5:], server)
	binary.LittleEndian.PutUint32(header[9:], uint32(eventHeaderSize+len(body)))
	f.Write(header)
	f.Write(body)
}

func (f *logFile) query(text string) {
	f.event(eventQuery, 1, append(make([]byte, 13), append([]byte{0}, text...)...))
}

// testUUID is the source of the MySQL files: 01020304-0506-....
var testUUID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

const testUUIDText = "01020304-0506-0708-090a-0b0c0d0e0f10"

func (f *logFile) mysqlGTID(number uint64) {
	body := append([]byte{1}, testUUID[:]...)
	f.event(eventMySQLGTID, 1, append(binary.LittleEndian.AppendUint64(body, number), 2, 0))
}

func (f *logFile) mysqlRows(number uint64) {
	f.mysqlGTID(number)
	f.query("BEGIN")
	f.event(eventTableMap, 1, []byte("map"))
	f.event(30, 1, []byte("rows"))
	f.event(eventXID, 1, make([]byte, 8))
}

// mysqlLogs writes files and an index of them.
func mysqlLogs(t *testing.T, files ...*logFile) (index string) {
	dir := t.TempDir()
	var list []byte
	for i, f := range files {
		name := "bin.00000" + string(rune('1'+i))
		if err := os.WriteFile(filepath.Join(dir, name), f.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		list = append(list, "./"+name+"\n"...)
	}
	index = filepath.Join(dir, "bin.index")
	if err := os.WriteFile(index, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return index
}

func TestMySQLTailIsCut(t *testing.T) {
	t.Parallel()
	first, last := newLogFile(), newLogFile()
	first.mysqlRows(1)
	last.mysqlRows(2)
	keep := last.Len()
	last.mysqlRows(3)
	last.mysqlGTID(4)
	last.query("CREATE TABLE t (id INT)")
	last.Write([]byte("torn"))
	index := mysqlLogs(t, first, last)

	tail, err := ReadTail("mysql", index, testUUIDText+":1-2")
	if err != nil {
		t.Fatal(err)
	}
	if len(tail.Groups) != 2 || tail.Offset != int64(keep) || tail.Torn != 4 || tail.Groups[1].Kind != GroupDDL {
		t.Fatalf("tail %+v", tail)
	}
	if err := tail.Rewindable(); err != nil {
		t.Fatal(err)
	}
	saved, err := tail.Save(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	listed(t, saved, tail.Groups)
	if err := tail.Cut(); err != nil {
		t.Fatal(err)
	}
	if again, err := ReadTail("mysql", index, testUUIDText+":1-2"); err != nil || !again.Empty() || again.Torn != 0 {
		t.Fatalf("after the cut %+v: %v", again, err)
	}
	if err := tail.Cut(); !errors.Is(err, ErrNotRewindable) {
		t.Fatalf("cutting a file that is not as it was read: %v", err)
	}
}

// TestTailIsSavedWithoutItsList: the bytes count, the list is a help.
func TestTailIsSavedWithoutItsList(t *testing.T) {
	t.Parallel()
	file := newLogFile()
	file.mysqlRows(1)
	file.mysqlRows(2)
	tail, err := ReadTail("mysql", mysqlLogs(t, file), testUUIDText+":1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := savedPath(dir, "", tail.GTIDs(), tail.Size-tail.Offset)
	if err := os.Mkdir(listPath(path), 0o700); err != nil { // in the way of the list
		t.Fatal(err)
	}
	var log strings.Builder
	saved, err := tail.Save(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || saved != path {
		t.Fatalf("saved as %q: %v", saved, err)
	}
	if info, err := os.Stat(saved); err != nil || info.Size() <= tail.Size-tail.Offset {
		t.Errorf("the saved tail: %v, %v", info, err)
	}
	if !strings.Contains(log.String(), "list of what is in it could not be written") {
		t.Errorf("the log does not tell that the list is missing: %s", log.String())
	}

	if err := os.Mkdir(path+".part", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path+".part", "x"), nil, 0o600); err != nil { // in the way of the bytes
		t.Fatal(err)
	}
	if saved, err := tail.Save(dir, slog.New(slog.DiscardHandler)); err == nil || saved != "" {
		t.Errorf("a tail that could not be written is saved as %q", saved)
	}
}

func TestTailIsNoSuffix(t *testing.T) {
	t.Parallel()
	file := newLogFile()
	file.mysqlRows(1)
	file.mysqlRows(7)
	file.mysqlRows(2)
	index := mysqlLogs(t, file)
	tail, err := ReadTail("mysql", index, testUUIDText+":1-2")
	if err != nil || !tail.Mixed {
		t.Fatalf("tail %+v: %v", tail, err)
	}
	if err := tail.Cut(); !errors.Is(err, ErrNotRewindable) {
		t.Fatalf("cutting it: %v", err)
	}
	for name, c := range map[string]func(*logFile){
		"xa":     func(f *logFile) { f.mysqlGTID(9); f.query("XA START X'61',X'',1"); f.event(eventXAPrepare, 1, nil) },
		"packed": func(f *logFile) { f.mysqlGTID(9); f.event(eventMySQLPayload, 1, []byte("compressed")) },
		"myisam": func(f *logFile) { f.mysqlGTID(9); f.query("BEGIN"); f.event(30, 1, nil); f.query("COMMIT") },
	} {
		file := newLogFile()
		file.mysqlRows(1)
		c(file)
		tail, err := ReadTail("mysql", mysqlLogs(t, file), testUUIDText+":1")
		if err != nil || len(tail.Groups) != 1 || !tail.Groups[0].Complete || tail.Rewindable() == nil {
			t.Errorf("%s: tail %+v: %v", name, tail, err)
		}
	}
}

func TestTailInTwoFiles(t *testing.T) {
	t.Parallel()
	first, last := newLogFile(), newLogFile()
	first.mysqlRows(1)
	first.mysqlRows(2)
	last.mysqlRows(3)
	tail, err := ReadTail("mysql", mysqlLogs(t, first, last), testUUIDText+":1")
	if err != nil || len(tail.Groups) != 2 || tail.InLastFile || tail.Rewindable() == nil {
		t.Fatalf("tail %+v: %v", tail, err)
	}
}

// TestRelayGroupOverTwoFiles: a receiver that reconnected within a transaction
// wrote the rest into the next file. It was acknowledged, so it must be seen.
func TestRelayGroupOverTwoFiles(t *testing.T) {
	t.Parallel()
	first, last := newLogFile(), newLogFile()
	first.mysqlRows(1)
	first.mysqlGTID(2)
	first.query("BEGIN")
	last.event(30, 1, []byte("rows"))
	last.event(eventXID, 1, make([]byte, 8))
	groups, err := readRelay(mysqlLogs(t, first, last), gtid.MySQL)
	if err != nil || len(groups) != 2 || !groups[1].Complete {
		t.Fatalf("%+v: %v", groups, err)
	}
}

func TestBinlogRefusals(t *testing.T) {
	t.Parallel()
	tagged := newLogFile()
	tagged.event(eventMySQLTaggedGTID, 1, make([]byte, 40))
	unstarted := &logFile{}
	unstarted.WriteString(binlogMagic)
	unstarted.event(eventXID, 1, make([]byte, 8))
	encrypted := newLogFile()
	encrypted.event(eventMariaDBEncrypted, 1, make([]byte, 17))
	magic := &logFile{}
	magic.WriteString(encryptedMagic)
	short := newLogFile()
	short.event(eventMySQLGTID, 1, make([]byte, 5))
	foreign := newLogFile()
	foreign.event(eventMariaDBGTID, 1, make([]byte, 19))
	for name, f := range map[string]*logFile{"tagged": tagged, "no format": unstarted, "encrypted": encrypted,
		"encrypted magic": magic, "short gtid": short, "other flavor": foreign, "empty": {}} {
		if _, err := ReadTail("mysql", mysqlLogs(t, f), ""); !errors.Is(err, ErrBinlog) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzBinlog: no bytes make the reader panic, loop or leave the file.
func FuzzBinlog(f *testing.F) {
	good := newLogFile()
	good.mysqlRows(1)
	good.mysqlGTID(2)
	good.query("CREATE TABLE t (id INT)")
	f.Add(good.Bytes())
	mariadb := newLogFile()
	mariadb.event(eventMariaDBGTID, 7, make([]byte, 19))
	mariadb.query("COMMIT")
	f.Add(mariadb.Bytes())
	f.Add([]byte(binlogMagic))
	f.Add([]byte(encryptedMagic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, flavor := range []gtid.Flavor{gtid.MariaDB, gtid.MySQL} {
			scan := groupScan{flavor: flavor}
			end, _ := scan.scan(bytes.NewReader(raw), "fuzz")
			if end > int64(len(raw)) {
				t.Fatalf("read to %d of %d bytes", end, len(raw))
			}
			before := int64(0)
			for _, g := range scan.groups {
				if g.Offset < before || g.End <= g.Offset || g.End > end || g.GTID == "" {
					t.Fatalf("group %+v after %d, end %d", g, before, end)
				}
				before = g.Offset
			}
		}
	})
}

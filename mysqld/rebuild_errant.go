package mysqld

import (
	"fmt"
	"io"
	"os"

	"github.com/highbase/highbase/fsm/gtid"
)

// errantBytes is how much of the binary logs is searched at most, from the end:
// errant transactions are looked for every few seconds, so they are near it.
const errantBytes = 8 << 30

// Errant is what a server's binary logs hold and a history lacks, wherever it
// stands: a Tail is only what stands at the end.
type Errant struct {
	// Groups are the transactions, in order.
	Groups []Group
}

// FindErrant reads the binary logs listed in index from the last backwards. It
// changes nothing, and the server may run. known is the cluster's history
// (Server.History). The search ends at the first file without an errant
// transaction before one with some, or after 8 GiB.
func FindErrant(dialect, index, known string) (Errant, error) {
	d, err := dialectFor(dialect)
	if err != nil {
		return Errant{}, err
	}
	have, err := gtid.ParseHistory(d.flavor(), known)
	if err != nil {
		return Errant{}, fmt.Errorf("reading the known history: %w", err)
	}
	files, err := binlogFiles(index)
	if err != nil {
		return Errant{}, err
	}
	var out Errant
	var read int64
	for i := len(files) - 1; i >= 0 && read < errantBytes; i-- {
		info, err := os.Stat(files[i])
		if err != nil {
			return Errant{}, fmt.Errorf("reading a binary log: %w", err)
		}
		read += info.Size()
		scan, _, err := scanFile(files[i], d.flavor())
		if err != nil {
			return Errant{}, err
		}
		groups := scan.groups
		var errant []Group
		for _, g := range groups {
			if g.Complete && !have.Holds(g.set) {
				errant = append(errant, g)
			}
		}
		if len(errant) == 0 && len(groups) > 0 && len(out.Groups) > 0 {
			break
		}
		out.Groups = append(errant, out.Groups...)
	}
	return out, nil
}

// GTIDs lists the transactions.
func (e Errant) GTIDs() []string {
	out := make([]string, 0, len(e.Groups))
	for _, g := range e.Groups {
		out = append(out, g.GTID)
	}
	return out
}

// Save writes the transactions to a file in dir that mysqlbinlog (mariadb-binlog)
// reads, and beside it, with .txt, a list for people. The name comes from what is
// in it, so that saving the same again changes nothing. Both are on disk when it
// returns. Nothing errant: no file.
func (e Errant) Save(dir string) (string, error) {
	if len(e.Groups) == 0 {
		return "", nil
	}
	gtids := e.GTIDs()
	path := savedPath(dir, "errant_", gtids, int64(len(gtids)))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := e.save(dir, path); err != nil {
		return "", fmt.Errorf("saving errant transactions: %w", err)
	}
	return path, nil
}

func (e Errant) save(dir, path string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := writeSynced(listPath(path), []byte(listOf(e.Groups, "that this server executed and the primary never had."))); err != nil {
		return err
	}
	return saveWhole(path, e.copyTo)
}

// copyTo writes one file's beginning and then every transaction as it stands.
func (e Errant) copyTo(out io.Writer) error {
	begun := false
	for _, g := range e.Groups {
		in, err := os.Open(g.File)
		if err != nil {
			return err
		}
		if !begun {
			err, begun = copyPreamble(out, in), true
		}
		if err == nil {
			_, err = io.Copy(out, io.NewSectionReader(in, g.Offset, g.End-g.Offset))
		}
		in.Close() // only read from
		if err != nil {
			return err
		}
	}
	return nil
}

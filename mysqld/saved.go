package mysqld

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// What a node alone has is kept before it is taken from it: in a file that the
// servers' tools read, and beside it, with .txt, a list for people.

// savedPath names the file by the first and the last of the transactions in it,
// so that an attempt that is repeated does not fill the disk with copies; number
// is what else tells two such files apart.
func savedPath(dir, prefix string, gtids []string, number int64) string {
	name := strings.NewReplacer(":", "_", "/", "_").Replace(prefix + gtids[0] + "_to_" + gtids[len(gtids)-1])
	return filepath.Join(dir, fmt.Sprintf("%s_%d.binlog", name, number))
}

// listPath is where the list of a saved file stands.
func listPath(saved string) string { return saved + ".txt" }

// saveWhole writes a file under its name only when all of it is on disk.
func saveWhole(path string, write func(io.Writer) error) error {
	part := path + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(write(out), out.Sync(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(part)) // on a full disk it would hold what is wanted for the next try
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// copyPreamble copies what stands in a binary log before its first transaction
// (magic number and format description): without it no tool reads what follows.
func copyPreamble(out io.Writer, in *os.File) error {
	size, err := preambleSize(in)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.NewSectionReader(in, 0, size))
	return err
}

// preambleSize is where the format description ends.
func preambleSize(in *os.File) (int64, error) {
	reader, err := newBinlogReader(io.NewSectionReader(in, 0, 1<<20))
	if err != nil {
		return 0, err
	}
	first, err := reader.next()
	if err != nil {
		return 0, err
	}
	return first.End, nil
}

// listOf is the list for people. what says which transactions they are.
func listOf(groups []Group, what string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d transactions %s\n", len(groups), what)
	fmt.Fprintf(&b, "The file beside this one holds them: mariadb-binlog --verbose FILE (mysqlbinlog --verbose on MySQL) shows the rows.\n\n")
	fmt.Fprintf(&b, "%-40s %-6s %10s  %s\n", "transaction", "kind", "bytes", "where")
	for _, g := range groups {
		fmt.Fprintf(&b, "%-40s %-6s %10d  %s at %d", g.GTID, g.Kind, g.End-g.Offset, filepath.Base(g.File), g.Offset)
		if !g.Complete {
			b.WriteString(", cut off before its end")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

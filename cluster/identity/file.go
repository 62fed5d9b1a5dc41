package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrCorrupt is returned when a file exists but is not, byte for byte, something this package wrote:
// empty, cut short, altered or of an unknown format. The node must not go on as if it were absent.
var ErrCorrupt = errors.New("file is corrupt")

// formatVersion is written into every file. Raising it makes older daemons refuse the file.
const formatVersion = 1

// maxFileBytes bounds what is read back. The files hold a few hundred bytes; one of a megabyte is not ours.
const maxFileBytes = 1 << 20

// castagnoli is the polynomial with hardware support, as in InnoDB and the Raft log.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// envelope is the outer form of every file. The checksum covers the bytes of Data as written.
type envelope struct {
	Version  int             `json:"version"`
	Checksum uint32          `json:"crc32c"`
	Data     json.RawMessage `json:"data"`
}

// writeJSON writes v to path so that a crash at any moment leaves the old file or the new one.
// When it returns nil the new content is on disk.
func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	out, err := json.Marshal(envelope{Version: formatVersion, Checksum: crc32.Checksum(data, castagnoli), Data: data})
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	return writeFile(path, append(out, '\n'))
}

// writeFile replaces path atomically and durably: the data reaches the disk before the name does, and
// the name before the call returns.
func writeFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := fill(tmp, data); err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return syncDir(dir)
}

// fill writes, syncs and closes f.
func fill(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes the names inside dir durable; without it a rename may be undone by a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing directory %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("syncing directory %s: %w", dir, err)
	}
	return nil
}

// readJSON reads what writeJSON wrote into v. found is false, with no error, only when the file does not
// exist; anything else that cannot be read back is ErrCorrupt or the error of the file system.
func readJSON(path string, v any) (found bool, err error) {
	raw, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", path, err)
	}
	var env envelope
	if err := strict(raw, &env); err != nil {
		return false, fmt.Errorf("reading %s: %w: %w", path, ErrCorrupt, err)
	}
	if env.Version != formatVersion {
		return false, fmt.Errorf("reading %s: %w: format version %d, this daemon knows %d", path, ErrCorrupt, env.Version, formatVersion)
	}
	if sum := crc32.Checksum(env.Data, castagnoli); sum != env.Checksum {
		return false, fmt.Errorf("reading %s: %w: checksum %d, the file says %d", path, ErrCorrupt, sum, env.Checksum)
	}
	if err := strict(env.Data, v); err != nil {
		return false, fmt.Errorf("reading %s: %w: %w", path, ErrCorrupt, err)
	}
	return true, nil
}

// readBounded reads a regular file of at most maxFileBytes.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFileBytes {
		return nil, fmt.Errorf("%w: mode %s, %d bytes", ErrCorrupt, info.Mode(), info.Size())
	}
	return os.ReadFile(path)
}

// strict decodes exactly one JSON value without unknown fields: a field this daemon does not know may be
// a promise it would break.
func strict(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

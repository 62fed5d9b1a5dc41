package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/highbase/highbase/cluster/api"
)

// serverFacts asks the server, and looks at its files.
func (c *checker) serverFacts(ctx context.Context) *api.CheckServer {
	s := c.cfg.Server
	out := &api.CheckServer{Dialect: s.Dialect, Kind: s.Service.Kind, Version: c.host.prober.Server().Version}
	c.files(ctx, out)
	f, err := c.host.server.Facts(ctx)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	out.Version, out.Problems = f.Status.Version, f.Status.Problems
	out.Variables, out.Boot = f.Variables, f.Boot
	out.MissingGrants, out.Replication, out.Bypass, out.XAStarts = f.MissingGrants, f.Replication, f.Bypass, f.XAStarts
	out.Events, out.MissingEventGrants = f.Events, f.MissingEventGrants
	if f.BootError != nil {
		out.BootError = f.BootError.Error()
	}
	if f.BypassError != nil {
		out.BypassError = f.BypassError.Error()
	}
	return out
}

// maxTables is how many tables of other engines are named.
const maxTables = 20

// otherEngines are the files by which a table of another engine is known. The files are looked at because the manager
// has no right to see the tables of applications.
var otherEngines = map[string]string{".MYI": "MyISAM", ".MAI": "Aria", ".CSV": "CSV", ".ARZ": "ARCHIVE", ".MRG": "MERGE"}

// ownSchemas are the servers' own.
var ownSchemas = []string{"mysql", "sys", "performance_schema", "information_schema", "#innodb_redo", "#innodb_temp"}

// files adds up the data directory and finds tables that InnoDB does not hold.
func (c *checker) files(ctx context.Context, out *api.CheckServer) {
	known, found := c.host.database.server.files.Load()
	if !found || known.DataDir == "" {
		out.DiskError = "the data directory is not known: the server has not answered yet"
		return
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(known.DataDir, &disk); err != nil {
		out.DiskError = fmt.Sprintf("looking at %s: %v", known.DataDir, err)
		return
	}
	out.FreeBytes = disk.Bavail * uint64(disk.Bsize)
	err := filepath.WalkDir(known.DataDir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile
		case err != nil:
			return err
		case !e.Type().IsRegular():
			return nil
		}
		noteFile(out, known.DataDir, path)
		info, err := e.Info()
		if err == nil {
			out.DataBytes += uint64(info.Size())
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		out.DiskError = fmt.Sprintf("adding up %s: %v", known.DataDir, err)
	}
}

// noteFile counts a file that belongs to a table of another engine.
func noteFile(out *api.CheckServer, dir, path string) {
	name, err := filepath.Rel(dir, path)
	if err != nil {
		return
	}
	schema, table, in := strings.Cut(name, "/")
	engine := otherEngines[filepath.Ext(table)]
	if !in || engine == "" || slices.Contains(ownSchemas, schema) || strings.HasPrefix(table, "#") {
		return
	}
	out.OtherCount++
	if len(out.OtherTables) < maxTables {
		out.OtherTables = append(out.OtherTables, fmt.Sprintf("%s.%s (%s)", schema, strings.TrimSuffix(table, filepath.Ext(table)), engine))
	}
}

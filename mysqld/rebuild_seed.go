package mysqld

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// initializer is a service that can make a data directory of its server's from
// nothing (MySQL: --initialize-insecure) and run the statements of a file on it.
type initializer interface {
	initialize(ctx context.Context, dir, statements string) error
}

// seed makes a new server's data, with no account but the manager's, on a host
// that has none: CLONE needs a running server to clone into, and replaces all of
// it. What failed starts have left is moved aside.
//
// It is made beside the data directory and moved there in steps that may be
// repeated; RebuildEntering says that this has begun.
func (r *Rebuild) seed(ctx context.Context, m *rebuildMark) error {
	if err := os.Remove(r.accountsFile()); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was killed
		return err
	}
	if m.Stage == RebuildPrepared {
		if has, err := HasData(r.cfg.DataDir); err != nil || has {
			return err
		}
		r.log.Info("there is no data: making a new server's, to clone into", "data_dir", r.cfg.DataDir)
		return r.makeSeed(ctx, m)
	}
	if m.Stage != RebuildEntering {
		return nil
	}
	return r.enterSeed(ctx, m)
}

// makeSeed makes the data beside what is there and then puts it in its place.
func (r *Rebuild) makeSeed(ctx context.Context, m *rebuildMark) error {
	if err := r.initialize(ctx); err != nil {
		return fmt.Errorf("making a server to clone into: %w", err)
	}
	if err := os.Mkdir(r.outgoing(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	m.Stage, m.Began = RebuildEntering, ""
	if err := r.setMark(*m); err != nil {
		return err
	}
	return r.enterSeed(ctx, m)
}

// enterSeed may be repeated from wherever it was cut off.
func (r *Rebuild) enterSeed(ctx context.Context, m *rebuildMark) error {
	// What failed starts have left running would write into it.
	if err := r.cfg.Service.Kill(ctx); err != nil {
		return fmt.Errorf("killing the server before its data is made: %w", err)
	}
	if !m.Cleared {
		if err := moveAll(r.cfg.DataDir, r.outgoing(), stay); err != nil {
			return err
		}
		m.Cleared = true
		if err := r.setMark(*m); err != nil {
			return err
		}
	}
	if err := moveAll(r.incoming(), r.cfg.DataDir, replace); err != nil {
		return err
	}
	m.Stage, m.Cleared = RebuildPlacing, false
	return r.setMark(*m)
}

func (r *Rebuild) accountsFile() string { return filepath.Join(r.work, "accounts.sql") }

// initialize fills the directory that copies come into. The manager's password
// is in a file that only the server's account may read, and only meanwhile.
func (r *Rebuild) initialize(ctx context.Context) error {
	service, ok := r.cfg.Service.(initializer)
	if !ok {
		return fmt.Errorf("%w: there is no data in %s, and hbd makes some only where it starts mysqld itself (service kind child): run mysqld --initialize-insecure there once, "+
			"create the manager's account, and start mysqld", ErrUnsupported, r.cfg.DataDir)
	}
	statements, err := managerStatements(r.cfg.Server.cfg)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(r.incoming()); err != nil {
		return err
	}
	if err := os.Mkdir(r.incoming(), 0o700); err != nil {
		return err
	}
	file := r.accountsFile()
	if err := os.WriteFile(file, []byte(strings.Join(statements, ";\n")+";\n"), 0o600); err != nil {
		return err
	}
	err = r.takeOwner(file, r.work)
	if err == nil {
		err = service.initialize(ctx, r.incoming(), file)
	}
	return errors.Join(err, os.Remove(file))
}

// managerStatements make the account that this program logs in with, and leave no
// other: root would be without a password. One statement stands on one line, as an
// init file wants it.
func managerStatements(cfg Config) ([]string, error) {
	account := literal(cfg.ManagerUser) + "@'localhost'"
	grants, err := ManagerGrants(cfg.Dialect, account)
	if err != nil {
		return nil, err
	}
	statements := append([]string{"CREATE USER " + account + " IDENTIFIED BY " + literal(cfg.ManagerPassword)}, grants...)
	return append(statements, "DROP USER 'root'@'localhost'"), nil
}

// literal quotes a string of a statement that no placeholder can stand in.
func literal(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`, "\r", `\r`, "\x00", `\0`).Replace(s) + "'"
}

// initialize implements initializer.
func (c *child) initialize(ctx context.Context, dir, statements string) error {
	args := append(append([]string(nil), c.cfg.Command[1:]...), "--datadir="+dir, "--initialize-insecure", "--init-file="+statements,
		"--disable-log-bin", "--read-only=OFF", "--super-read-only=OFF", "--auto-generate-certs=OFF", "--caching-sha2-password-auto-generate-rsa-keys=OFF")
	out, err := os.OpenFile(c.cfg.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, c.cfg.Command[0], args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s --initialize-insecure (see %s): %w", c.cfg.Command[0], c.cfg.Log, err)
	}
	return nil
}

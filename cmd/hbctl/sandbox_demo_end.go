package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/highbase/highbase/sandbox"
)

// end stops the clients and removes the sandbox, or says how to look at it.
func (d *demo) end(ctx context.Context) error {
	if d.load != nil {
		d.load.Stop()
	}
	if d.client != nil {
		d.client.Close()
	}
	if d.sb == nil {
		return nil
	}
	if d.keep {
		verb := "hbctl sandbox --name " + d.opt.Name
		if d.opt.Dir != "" {
			verb += " --dir " + d.opt.Dir
		}
		fmt.Fprintf(d.a.err, "kept: %s status, %s exec client -- hbctl status, and at the end %s down\n", verb, verb, verb)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, demoDownLimit)
	defer cancel()
	if err := d.sb.Down(ctx); err != nil {
		return fmt.Errorf("removing the sandbox: %w", err)
	}
	d.removed = true
	return nil
}

// demoName is the name of a demo's own sandbox, with the process that made it.
var demoName = regexp.MustCompile(`^demo-([0-9]+)$`)

// sweepDemos removes what demos have left that were killed by SIGKILL: their processes end with them, their files do not.
func sweepDemos(ctx context.Context, dir string) error {
	if dir == "" {
		var err error
		if dir, err = sandbox.DefaultDir(); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for what killed demos have left: %w", err)
	}
	for _, e := range entries {
		m := demoName.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		pid, err := strconv.Atoi(m[1])
		if err != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue // of somebody who lives
		}
		if _, err := sandbox.OpenIn(dir, e.Name()); !errors.Is(err, sandbox.ErrNotUp) {
			continue // kept with --keep
		}
		if err := sandbox.Down(ctx, dir, e.Name()); err != nil {
			return fmt.Errorf("removing what a killed demo has left: %w", err)
		}
	}
	return nil
}

// showLogs prints the end of every log, while there still are logs.
func (d *demo) showLogs() {
	if d.sb == nil {
		return
	}
	tails, err := d.sb.LogTails(demoLogTail)
	if err != nil {
		fmt.Fprintf(d.a.err, "hbctl: %s\n", clean(err.Error()))
	}
	for _, t := range tails {
		fmt.Fprintf(d.a.err, "--- the end of %s\n%s\n", t.Path, clean(t.Text))
	}
	if len(tails) > 0 && !d.keep {
		fmt.Fprintf(d.a.err, "--- these logs go with the sandbox; with --keep it stays\n")
	}
}

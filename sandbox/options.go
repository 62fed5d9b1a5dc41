package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// Sentinel errors of this package; callers tell them apart with errors.Is.
var (
	// ErrUsage marks a request that can never succeed as written: a bad name, an unknown fault, a missing argument.
	ErrUsage = errors.New("usage")
	// ErrNotUp is returned when no running sandbox has the wanted name.
	ErrNotUp = errors.New("sandbox is not up")
	// ErrAlreadyUp is returned by Up when a running sandbox already has the name.
	ErrAlreadyUp = errors.New("sandbox is already up")
)

// mistake is an error that wraps ErrUsage without saying the word.
type mistake struct{ error }

func (mistake) Is(target error) bool { return target == ErrUsage }
func (m mistake) Unwrap() error      { return m.error }

func usagef(format string, args ...any) error { return mistake{fmt.Errorf(format, args...)} }

// DefaultName is the name of the sandbox that is meant when none is given.
const DefaultName = "default"

// Options says which sandbox Up builds. The zero value is three database hosts with MariaDB and hbd.
type Options struct {
	Name          string            // lower-case letters, digits and dashes, at most 24; DefaultName if empty
	Dir           string            // directory that holds sandboxes, this one in Dir/Name; DefaultDir() if empty
	Nodes         int               // database hosts db1..; 3 if 0, at most 9
	Witnesses     int               // hosts w1.. with hbd and no server; at most 9
	Server        string            // "mariadb" (default) or "mysql"
	ServerPath    string            // directory with the server's programs, or root of its unpacked packages; see server.program if empty
	Timing        string            // timing profile in hbd's configuration: "lan" (default) or "fast"
	OnServiceDown string            // "restart" (default) or "failover"
	MinReplicas   int               // acknowledgements that are never given up (sync.min_replicas)
	DegradeAfter  time.Duration     // without replicas for so long writes go on without them (sync.degrade_after); the profile's if 0
	Settings      map[string]string // thresholds of hbd's settings section that differ from the profile's
	LogLevel      string            // hbd's log level: debug, info (default), warn, error
	VIP6          bool              // gives the cluster an IPv6 VIP as well
	Bare          bool              // no hbd: each database host starts its server itself, replication is not set up
	NoBootstrap   bool              // start hbd everywhere but leave the cluster without a first primary
	DiskSize      int64             // bytes of memory disk for each data directory; 0: the real disk. fill-disk needs it
	HBD           string            // path of hbd; beside this program, else in $PATH, if empty
	Program       string            // path of hbctl, which runs the sandbox; see RunIfChild and findProgram if empty

	// TieToCaller makes the sandbox end when the calling process ends, however it ends. For tests.
	TieToCaller bool
	// KeepFailed leaves a sandbox whose bootstrap failed running, to look at. Otherwise a failed Up removes it.
	KeepFailed bool
	// Progress, if set, is called with one line for each stage.
	Progress func(line string)
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?$`)

func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return usagef("sandbox name %q: want 1 to 24 lower-case letters, digits and inner dashes", name)
	}
	return nil
}

// DefaultDir is where sandboxes live unless told otherwise: /var/lib/highbase/sandbox for root, else
// $XDG_STATE_HOME/highbase/sandbox, by default ~/.local/state/highbase/sandbox.
func DefaultDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/highbase/sandbox", nil
	}
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "highbase", "sandbox"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding a place for the sandbox (give one with --dir): %w", err)
	}
	return filepath.Join(home, ".local", "state", "highbase", "sandbox"), nil
}

// withDefaults returns o with every empty field filled in, or an error wrapping ErrUsage.
func (o Options) withDefaults() (Options, error) {
	setDefault(&o.Name, DefaultName)
	setDefault(&o.Server, "mariadb")
	setDefault(&o.Timing, "lan")
	setDefault(&o.OnServiceDown, "restart")
	setDefault(&o.LogLevel, "info")
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if err := o.check(); err != nil {
		return o, err
	}
	var err error
	if o.Dir, err = baseDir(o.Dir); err != nil {
		return o, err
	}
	if o.Program, err = findProgram(o.Program); err != nil {
		return o, err
	}
	if !o.Bare {
		o.HBD, err = findBinary("hbd", o.HBD)
		if err != nil {
			return o, fmt.Errorf("finding hbd (give it with --hbd, or use --bare): %w", err)
		}
	}
	return o, nil
}

func (o Options) check() error {
	if err := checkName(o.Name); err != nil {
		return err
	}
	if o.Nodes < 1 || o.Nodes > 9 {
		return usagef("nodes = %d: want 1 to 9", o.Nodes)
	}
	if o.Witnesses < 0 || o.Witnesses > 9 {
		return usagef("witnesses = %d: want 0 to 9", o.Witnesses)
	}
	if o.MinReplicas < 0 || o.MinReplicas > o.Nodes-1 {
		return usagef("min-replicas = %d: %d database hosts have %d replicas", o.MinReplicas, o.Nodes, o.Nodes-1)
	}
	if o.MinReplicas > 1 && o.Server == "mariadb" {
		return usagef("min-replicas = %d: MariaDB waits for one replica", o.MinReplicas)
	}
	if o.DegradeAfter < 0 {
		return usagef("degrade-after = %v: want a duration above 0", o.DegradeAfter)
	}
	if o.DiskSize != 0 && o.DiskSize < minDiskSize {
		return usagef("disk size = %d bytes: a data directory needs at least %d", o.DiskSize, minDiskSize)
	}
	for _, c := range []struct {
		flag, value string
		allowed     []string
	}{
		{"timing", o.Timing, []string{"lan", "fast"}},
		{"on-service-down", o.OnServiceDown, []string{"restart", "failover"}},
		{"log-level", o.LogLevel, []string{"debug", "info", "warn", "error"}},
	} {
		if !contains(c.allowed, c.value) {
			return usagef("%s = %q: want one of %v", c.flag, c.value, c.allowed)
		}
	}
	_, err := newServer(o.Server)
	return err
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func baseDir(dir string) (string, error) {
	if dir == "" {
		return DefaultDir()
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("resolving the directory %q: %w", dir, err)
	}
	return abs, nil
}

// findBinary returns the absolute path of the program name: given, if set; else beside this program; else in $PATH.
func findBinary(name, given string) (string, error) {
	if given == "" {
		if self, err := os.Executable(); err == nil {
			beside := filepath.Join(filepath.Dir(self), name)
			if _, err := exec.LookPath(beside); err == nil {
				return beside, nil
			}
		}
		given = name
	}
	path, err := exec.LookPath(given)
	if err != nil {
		return "", fmt.Errorf("looking for %s: %w", given, err)
	}
	return filepath.Abs(path)
}

// findProgram returns the program that the runner executes: given; else this program, if it called RunIfChild; else
// hbctl.
func findProgram(given string) (string, error) {
	if given == "" && runsChildren {
		return os.Executable()
	}
	path, err := findBinary("hbctl", given)
	if err != nil {
		return "", fmt.Errorf("finding the program that runs the sandbox: %w", err)
	}
	return path, nil
}

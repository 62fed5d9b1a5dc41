package highbase_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/highbase/highbase"

// maxFileLines is the ceiling for a source file that is no test.
const maxFileLines = 400

// allowed is the whole import graph: what of ours, and which outside modules, the
// source (not the tests) of each package may import. Imports go downwards only. A
// package that is not here fails the test: put it in its place first.
var allowed = map[string]struct{ ours, outside []string }{
	"fsm/gtid":          {},
	"fsm":               {ours: []string{"fsm/gtid"}},
	"fsm/internal/sim":  {ours: []string{"fsm", "fsm/gtid"}},
	"vip":               {outside: []string{"github.com/mdlayher/", "github.com/vishvananda/", "github.com/google/nftables", "golang.org/x/sys", "golang.org/x/net"}},
	"vip/viptest":       {ours: []string{"vip"}},
	"mysqld":            {ours: []string{"fsm/gtid"}, outside: []string{"github.com/go-sql-driver/mysql", "github.com/coreos/go-systemd/v22", "github.com/godbus/dbus/v5", "golang.org/x/sys"}},
	"internal/porttest": {},
	"mysqld/mysqldtest": {ours: []string{"fsm/gtid", "mysqld"}, outside: []string{"github.com/go-sql-driver/mysql"}},
	"probe":             {ours: []string{"fsm", "fsm/gtid", "mysqld"}, outside: []string{"github.com/go-sql-driver/mysql", "github.com/mdlayher/", "golang.org/x/sys"}},
	"cluster": {ours: []string{"fsm", "fsm/gtid", "cluster/api", "cluster/rpc", "cluster/raftnode", "cluster/gossip", "cluster/identity", "cluster/transfer"},
		outside: []string{"golang.org/x/sys"}},
	"cluster/api":      {},
	"cluster/transfer": {},
	"cluster/identity": {outside: []string{"golang.org/x/sys"}},
	"cluster/rpc":      {ours: []string{"cluster/identity"}},
	"cluster/raftnode": {ours: []string{"cluster/identity"}, outside: []string{"github.com/hashicorp/raft", "github.com/hashicorp/raft-boltdb/v2", "github.com/hashicorp/go-hclog", "go.etcd.io/bbolt", "golang.org/x/sys"}},
	"cluster/gossip":   {outside: []string{"github.com/hashicorp/memberlist", "github.com/hashicorp/go-metrics"}},
	"check":            {ours: []string{"cluster/api"}},
	"cluster/httpd":    {ours: []string{"fsm", "cluster/api"}, outside: []string{"github.com/prometheus/"}},
	"sandbox":          {outside: []string{"github.com/vishvananda/", "github.com/google/nftables", "github.com/go-sql-driver/mysql", "golang.org/x/sys"}},
	"integration":      {ours: []string{"cluster/api", "fsm/gtid", "sandbox"}, outside: []string{"github.com/go-sql-driver/mysql"}},
	"cmd/hbctl":        {ours: []string{"cluster/api", "sandbox"}, outside: []string{"github.com/spf13/", "golang.org/x/sys", "golang.org/x/term"}},
	"cmd/hbd": {ours: []string{"fsm", "fsm/gtid", "vip", "mysqld", "probe", "cluster", "check", "cluster/api", "cluster/httpd", "cluster/identity", "cluster/rpc", "cluster/raftnode", "cluster/gossip"},
		outside: []string{"github.com/goccy/go-yaml", "github.com/coreos/go-systemd/v22", "golang.org/x/sys"}},
}

// listed is what `go list -json` tells of a package.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func list(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-tags", "integration", "-json=ImportPath,Dir,GoFiles,Imports", "./...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var packages []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		if p.ImportPath != module { // the root has this test only
			packages = append(packages, p)
		}
	}
}

func TestImportsGoDownwards(t *testing.T) {
	for _, p := range list(t) {
		for _, complaint := range wrongEdges(p) {
			t.Error(complaint)
		}
	}
}

// wrongEdges lists a package's imports that the table does not allow.
func wrongEdges(p listed) []string {
	name := strings.TrimPrefix(p.ImportPath, module+"/")
	may, known := allowed[name]
	if !known {
		return []string{name + " has no place in the table of allowed imports"}
	}
	var wrong []string
	for _, path := range p.Imports {
		ours, isOurs := strings.CutPrefix(path, module+"/")
		switch {
		case isOurs && slices.Contains(may.ours, ours):
		case !isOurs && isStandard(path):
		case !isOurs && slices.ContainsFunc(may.outside, func(prefix string) bool { return within(path, prefix) }):
		default:
			wrong = append(wrong, name+" must not import "+path)
		}
	}
	return wrong
}

// isStandard: only the standard library has no dot in the first element.
func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}

// TestWrongEdgesAreSeen is the control of TestImportsGoDownwards.
func TestWrongEdgesAreSeen(t *testing.T) {
	for _, c := range []struct {
		from, to string
		wrong    bool
	}{
		{"fsm", "sort", false},
		{"fsm", module + "/fsm/gtid", false},
		{"fsm", module + "/cluster", true},
		{"fsm", "golang.org/x/sys/unix", true},
		{"vip", "github.com/google/nftables/expr", false},
		{"vip", "github.com/google/nftablesque", true},
		{"cluster/api", "github.com/spf13/cobra", true},
		{"newcomer", "fmt", true},
	} {
		p := listed{ImportPath: module + "/" + c.from, Imports: []string{c.to}}
		if got := len(wrongEdges(p)) > 0; got != c.wrong {
			t.Errorf("%s importing %s: refused %t, want %t", c.from, c.to, got, c.wrong)
		}
	}
}

// TestPackagesSayWhatTheyDoNot: every library package has a doc.go that draws its limit.
func TestPackagesSayWhatTheyDoNot(t *testing.T) {
	for _, p := range list(t) {
		if strings.HasPrefix(p.ImportPath, module+"/cmd/") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, "doc.go"), nil, parser.ParseComments|parser.PackageClauseOnly)
		if errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s has no doc.go", p.ImportPath)
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if !slices.ContainsFunc(strings.Split(f.Doc.Text(), "\n"), func(l string) bool { return strings.HasPrefix(l, "It does not") }) {
			t.Errorf("%s: no line of its doc.go begins with \"It does not\"", p.ImportPath)
		}
	}
}

func TestFilesStaySmall(t *testing.T) {
	for _, p := range list(t) {
		for _, name := range p.GoFiles {
			path := filepath.Join(p.Dir, name)
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Error(err)
				continue
			}
			if n := set.File(f.Pos()).LineCount(); n > maxFileLines {
				t.Errorf("%s has %d lines, the ceiling is %d", path, n, maxFileLines)
			}
		}
	}
}

// TestFSMIsPure: the judgement has no clock, no chance, no I/O, no concurrency, and no
// order taken from a map. With the same input it gives the same output everywhere.
func TestFSMIsPure(t *testing.T) {
	for _, p := range list(t) {
		if name := strings.TrimPrefix(p.ImportPath, module+"/"); name != "fsm" && name != "fsm/gtid" {
			continue
		}
		set := token.NewFileSet()
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		for _, complaint := range impurities(set, p.ImportPath, files) {
			t.Error(complaint)
		}
	}
}

// TestImpurityIsSeen is the control of TestFSMIsPure.
func TestImpurityIsSeen(t *testing.T) {
	for name, c := range map[string]struct {
		body  string
		count int
	}{
		"clean":           {`import "time"; func f(now time.Time) time.Duration { return now.Sub(now.Add(-time.Second)) }`, 0},
		"clock":           {`import "time"; func f() bool { return time.Now().IsZero() }`, 1},
		"since":           {`import "time"; func f(t time.Time) time.Duration { return time.Since(t) }`, 1},
		"alias":           {`import clock "time"; var f = clock.Now`, 1},
		"sleep":           {`import "time"; func f() { time.Sleep(1) }`, 1},
		"chance":          {`import "math/rand/v2"; func f() int { return rand.Int() }`, 1},
		"system":          {`import ("os"; "net"; "log"; "log/slog"; "sync"); var _, _, _, _, _ = os.Args, net.IP{}, log.Print, slog.Info, sync.Mutex{}`, 5},
		"goroutine":       {`func f() { go f() }`, 1},
		"channel":         {`func f(c chan int) { c <- 1; select {} }`, 3},
		"receive":         {`func f(g func() <-chan int) int { return <-g() }`, 2},
		"map":             {`func f(m map[string]int) (n int) { for _, v := range m { n = v }; return }`, 1},
		"map field":       {`type s struct{ m map[string]int }; func f(x s) { for range x.m { } }`, 1},
		"named map":       {`type m map[string]int; func f(x m) { for k := range x { _ = k } }`, 1},
		"maps.Keys":       {`import "maps"; func f(m map[string]int) { for range maps.Keys(m) { } }`, 1},
		"maps sorted":     {`import ("maps"; "slices"); func f(m map[string]int) { for range slices.Sorted(maps.Keys(m)) { } }`, 0},
		"sorted keys":     {`func sortedKeys(m map[string]int) (k []string) { for s := range m { k = append(k, s) }; return }`, 0},
		"slice is no map": {`func f(s []int) { for range s { } }`, 0},
	} {
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, "x.go", "package x; "+c.body, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := impurities(set, module+"/x", []*ast.File{f}); len(got) != c.count {
			t.Errorf("%s: found %q, want %d complaints", name, got, c.count)
		}
	}
}

func unquote(lit *ast.BasicLit) string {
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		return lit.Value
	}
	return s
}

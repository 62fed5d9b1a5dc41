package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/fsm"
)

var update = flag.Bool("update", false, "write the golden files anew")

// inDir gives a configuration text with DIR replaced by a directory that has the password files.
func inDir(t *testing.T, text string) (dir, out string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range map[string]string{"manager": "m-secret\n", "replication": "r-secret\nsecond line\n", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, strings.ReplaceAll(text, "DIR", dir)
}

func readTestdata(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestGoodConfig(t *testing.T) {
	_, text := inDir(t, readTestdata(t, "good.yaml"))
	c, err := parseConfig("hbd.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if c.Server.Manager.password != "m-secret" || c.Server.Replication.password != "r-secret" {
		t.Error("passwords are not the first lines of their files")
	}
	if c.Settings.Lease != 1500*time.Millisecond || c.Settings.Renew != 200*time.Millisecond || c.Settings.OnServiceDown != fsm.OnServiceDownFailover {
		t.Errorf("settings: %+v", c.Settings)
	}
	if c.Settings.SyncMinReplicas != 1 || c.Settings.DegradeAfter != 30*time.Second {
		t.Errorf("sync: %+v", c.Settings)
	}
	if c.Server.Port != 3307 || c.Ports.API != 7948 || c.Ports.Metrics != 17949 {
		t.Errorf("ports: server %d, %+v", c.Server.Port, c.Ports)
	}
	want := []fsm.Member{
		{ID: "db1", Address: "10.77.0.1", API: "10.77.0.1:7948", Raft: "10.77.0.1:7947", MySQLPort: 3307, Role: fsm.RoleData, Priority: 100},
		{ID: "db2", Address: "10.77.0.2", API: "10.77.0.2:7948", Raft: "10.77.0.2:7947", MySQLPort: 3306, Role: fsm.RoleData, Priority: 7, NeverPromote: true},
		{ID: "w1", Address: "fd77::3", API: "[fd77::3]:7948", Raft: "[fd77::3]:7947", Role: fsm.RoleWitness},
	}
	if got := c.members(); !reflect.DeepEqual(got, want) {
		t.Errorf("members:\n%+v, want\n%+v", got, want)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

func TestWitnessConfig(t *testing.T) {
	c, err := parseConfig("hbd.yaml", []byte(readTestdata(t, "witness.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	if !c.isWitness() || c.Server != nil {
		t.Errorf("%+v", c)
	}
}

// TestConfigErrors reads every testdata/bad-*.yaml and compares all that is said about it. Each mistake gets one line.
func TestConfigErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/bad-*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			dir, text := inDir(t, readTestdata(t, filepath.Base(file)))
			_, err := parseConfig("hbd.yaml", []byte(text))
			var known *configError
			if !errors.As(err, &known) {
				t.Fatalf("not refused in order: %v", err)
			}
			got := strings.ReplaceAll(err.Error(), dir, "DIR") + "\n"
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("said:\n%swant:\n%s", got, want)
			}
			form := regexp.MustCompile(`^hbd\.yaml:\d+:\d+: [^;]+; .+$`)
			for _, line := range strings.Split(strings.TrimSuffix(got, "\n"), "\n") {
				if !form.MatchString(line) {
					t.Errorf("not FILE:LINE:COLUMN: WHAT; MEND: %s", line)
				}
			}
		})
	}
}

func TestReadablePasswordFileIsWarnedOf(t *testing.T) {
	dir, text := inDir(t, readTestdata(t, "good.yaml"))
	if err := os.Chmod(filepath.Join(dir, "manager"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig("hbd.yaml", []byte(text))
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "chmod 600") {
		t.Errorf("%v, %v", c.Warnings, err)
	}
}

// TestPasswordsAreNotShown: no error speaks a password, whatever is wrong around it.
func TestPasswordsAreNotShown(t *testing.T) {
	_, text := inDir(t, readTestdata(t, "good.yaml"))
	_, err := parseConfig("hbd.yaml", []byte(strings.Replace(text, "dialect: mariadb", "dialect: oracle", 1)))
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

// schemaKeys lists every key a file may have, as written in docs/hbd.yaml.md.
func schemaKeys(of reflect.Type, prefix string) []string {
	var out []string
	for name, i := range keysOf(of) {
		key := strings.TrimPrefix(prefix+"."+name, ".")
		if prefix == "settings" && settingsElsewhere[name] != "" {
			continue // these have their place elsewhere
		}
		out = append(out, key)
		field := of.Field(i).Type
		if key == "settings" {
			field = reflect.TypeFor[fsm.Settings]()
		}
		if field.Kind() == reflect.Slice {
			key += "[]"
			field = field.Elem()
		}
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		if field.Kind() == reflect.Struct {
			out = append(out, schemaKeys(field, key)...)
		}
	}
	return out
}

// TestEveryKeyIsDocumented: the page names exactly the keys there are.
func TestEveryKeyIsDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../docs/hbd.yaml.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(raw), -1) {
		documented[m[1]] = true
	}
	keys := schemaKeys(reflect.TypeFor[config](), "")
	for _, key := range keys {
		if !documented[key] {
			t.Errorf("%s is not in docs/hbd.yaml.md", key)
		}
	}
	for key := range documented {
		if !slices.Contains(keys, key) {
			t.Errorf("docs/hbd.yaml.md names %s, which is no key", key)
		}
	}
}

// TestDocumentedDefaults compares the values of both profiles with the page.
func TestDocumentedDefaults(t *testing.T) {
	raw, err := os.ReadFile("../../docs/hbd.yaml.md")
	if err != nil {
		t.Fatal(err)
	}
	for column, name := range []string{"lan", "fast"} {
		s, err := fsm.Profile(name)
		if err != nil {
			t.Fatal(err)
		}
		v := reflect.ValueOf(s)
		for key, i := range keysOf(v.Type()) {
			m := regexp.MustCompile("(?m)^\\| `settings\\." + key + "` \\|[^|]*\\| ([^|]*) \\| ([^|]*) \\|").FindStringSubmatch(string(raw))
			if m == nil {
				continue // reported by TestEveryKeyIsDocumented
			}
			d := newDecoder("page")
			got := reflect.New(v.Type()).Elem()
			d.document([]byte(key+": "+m[column+1]), got.Addr().Interface())
			if err := d.err(); err != nil || !reflect.DeepEqual(got.Field(i).Interface(), v.Field(i).Interface()) {
				t.Errorf("%s of profile %s: the page says %s, the code %v (%v)", key, name, m[column+1], v.Field(i), err)
			}
		}
	}
}

// TestSyncDefaults: without the section the profile's values count, and an empty value is none.
func TestSyncDefaults(t *testing.T) {
	_, text := inDir(t, strings.Replace(readTestdata(t, "good.yaml"), "sync: {min_replicas: 1, degrade_after: 30s}\n", "", 1))
	c, err := parseConfig("hbd.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if c.Settings.SyncMinReplicas != 0 || c.Settings.DegradeAfter != 10*time.Second {
		t.Errorf("sync: %+v", c.Settings)
	}
}

func FuzzParseConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := parseConfig("hbd.yaml", raw); err != nil && err.Error() == "" {
			t.Error("refused without a word")
		}
	})
}

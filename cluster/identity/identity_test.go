package identity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// promise resembles what the cluster package keeps: the highest action a node has accepted.
type promise struct {
	Frozen uint64   `json:"frozen"`
	Index  uint64   `json:"index"`
	Steps  []string `json:"steps"`
}

func TestInstanceIsMadeOnceAndDiesWithTheStore(t *testing.T) {
	raftDir := filepath.Join(t.TempDir(), "raft")
	first, err := OpenInstance(raftDir)
	if err != nil {
		t.Fatal(err)
	}
	if first.Sealed || len(first.ID) != 2*idBytes {
		t.Fatalf("new instance %+v: want unsealed with %d hex digits", first, 2*idBytes)
	}
	if err := SealInstance(raftDir); err != nil {
		t.Fatal(err)
	}
	again, err := OpenInstance(raftDir)
	if err != nil {
		t.Fatal(err)
	}
	if again.ID != first.ID || !again.Sealed {
		t.Fatalf("reopened instance %+v, want %s sealed", again, first.ID)
	}
	if err := os.RemoveAll(raftDir); err != nil {
		t.Fatal(err)
	}
	wiped, err := OpenInstance(raftDir)
	if err != nil {
		t.Fatal(err)
	}
	if wiped.ID == first.ID || wiped.Sealed {
		t.Fatalf("a wiped store came back as %+v, the old instance was %s", wiped, first.ID)
	}
}

func TestClusterIDIsSetOnce(t *testing.T) {
	dir := t.TempDir()
	if id, err := ClusterID(dir); err != nil || id != "" {
		t.Fatalf("fresh directory: %q, %v", id, err)
	}
	for range 2 {
		if err := SetClusterID(dir, "aaaa"); err != nil {
			t.Fatal(err)
		}
	}
	if err := SetClusterID(dir, "bbbb"); !errors.Is(err, ErrOtherCluster) {
		t.Fatalf("second cluster: %v, want ErrOtherCluster", err)
	}
	if id, err := ClusterID(dir); err != nil || id != "aaaa" {
		t.Fatalf("after refusal: %q, %v", id, err)
	}
}

func TestDurableSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "promises.json")
	d := open(t, path)
	if v, found := d.Load(); found {
		t.Fatalf("never stored, yet found %+v", v)
	}
	want := promise{Frozen: 7, Index: 1 << 60, Steps: []string{"freeze"}}
	if err := d.Store(want); err != nil {
		t.Fatal(err)
	}
	// A caller that scribbles over what it stored or loaded must not change the promise.
	want.Steps[0] = "scribble"
	got, _ := d.Load()
	got.Steps[0] = "scribble"
	for name, v := range map[string]*Durable[promise]{"same": d, "reopened": open(t, path)} {
		got, found := v.Load()
		if !found || got.Frozen != 7 || got.Index != 1<<60 || got.Steps[0] != "freeze" {
			t.Fatalf("%s: %+v found=%v", name, got, found)
		}
	}
}

func TestDurableUpdateIsOneStep(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "promises.json"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := d.Update(func(v promise, _ bool) (promise, error) {
				v.Index++
				return v, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	refusal := errors.New("lower than accepted")
	err := d.Update(func(promise, bool) (promise, error) { return promise{}, refusal })
	if !errors.Is(err, refusal) {
		t.Fatalf("refusing update: %v", err)
	}
	if v, _ := open(t, d.path).Load(); v.Index != 8 {
		t.Fatalf("index %d after 8 updates and a refusal", v.Index)
	}
}

func TestDamagedFilesAreErrorsAndNeverEmpty(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.json")
	if err := open(t, good).Store(promise{Frozen: 41}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{
		"empty":           "",
		"zeros":           strings.Repeat("\x00", len(raw)),
		"cut short":       string(raw[:len(raw)/2]),
		"one digit":       strings.Replace(string(raw), "41", "42", 1),
		"two values":      string(raw) + string(raw),
		"unknown field":   `{"version":1,"crc32c":0,"data":{},"more":1}`,
		"unknown version": `{"version":2,"crc32c":0,"data":{}}`,
		"no data":         `{"version":1,"crc32c":0}`,
		"not ours":        "hello",
	}
	for name, content := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "promises.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if d, err := OpenDurable[promise](path); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("opened %v, error %v, want ErrCorrupt", d, err)
			}
		})
	}
}

func TestCorruptIdentityIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{clusterFile, instanceFile} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ClusterID(dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cluster id: %v", err)
	}
	if err := SetClusterID(dir, "aaaa"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("setting over a corrupt cluster id: %v", err)
	}
	if _, err := OpenInstance(dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("instance: %v", err)
	}
}

func TestFailedStoreKeepsTheOldValue(t *testing.T) {
	dir := t.TempDir()
	d := open(t, filepath.Join(dir, "promises.json"))
	if err := d.Store(promise{Frozen: 3}); err != nil {
		t.Fatal(err)
	}
	moved := dir + ".away"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := d.Store(promise{Frozen: 4}); err == nil {
		t.Fatal("stored into a directory that is gone")
	}
	if err := os.Rename(moved, dir); err != nil {
		t.Fatal(err)
	}
	if v, _ := d.Load(); v.Frozen != 3 {
		t.Fatalf("in memory %+v, want frozen 3", v)
	}
	if v, _ := open(t, d.path).Load(); v.Frozen != 3 {
		t.Fatalf("on disk %+v, want frozen 3", v)
	}
}

func TestOneDaemonPerDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	// flock belongs to the open file, so a second open in one process collides like a second process.
	if _, err := LockDir(dir); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "process") {
		t.Fatalf("second lock: %v, want ErrLocked with the holder", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = LockDir(dir)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *Durable[promise] {
	t.Helper()
	d, err := OpenDurable[promise](path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

package mysqld

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// cloneFrom is a copy of a MySQL donor: nothing comes through the stream.
func cloneFrom(donor *node) Incoming {
	return Incoming{ID: "1", Stream: strings.NewReader(""), Host: "127.0.0.1", Port: donor.port}
}

// TestRebuildByClone: a replica with transactions of its own clones another
// replica, and follows the primary.
func TestRebuildByClone(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		k.only(t, "mysql", "it has no CLONE")
		primary, donor, errant := errantReplica(t, k)
		ctx := testContext(t)
		before := errant.status().ServerUUID
		errant.must(errant.rebuild().Receive(ctx, cloneFrom(donor)))
		if errant.stage() != RebuildPrepared || errant.count() != 51 {
			t.Fatalf("stage %q, %d rows", errant.stage(), errant.count())
		}
		errant.must(errant.rebuild().Place(ctx))
		// As after a crash of this program before it could note the end: the clone
		// that was made is found, and no second one begun.
		r := errant.rebuild()
		m, err := r.mark()
		errant.must(err)
		m.Stage = RebuildPlacing
		errant.must(r.setMark(m))
		primary.must(primary.insert(ctx, 5))
		errant.must(r.Place(ctx))
		errant.must(errant.rebuild().Adopt(ctx))
		if n := errant.count(); n != 50 {
			t.Fatalf("%d rows: another clone was made", n)
		}
		if st := errant.status(); st.HasReplication || st.ServerUUID != before {
			t.Fatalf("after the clone: %+v", st)
		}
		errant.follow(primary, false)
		sameRows(t, primary, errant)
		errant.must(errant.rebuild().Finish())
	})
}

// TestCloneThatIsRefused leaves the data as it is, and says why.
func TestCloneThatIsRefused(t *testing.T) {
	eachServer(t, func(t *testing.T, k *kind) {
		k.only(t, "mysql", "it has no CLONE")
		_, donor, errant := errantReplica(t, k)
		ctx, cancel := context.WithCancel(testContext(t))
		defer cancel()
		donor.must(donor.service.Kill(ctx))
		errant.must(errant.rebuild().Receive(ctx, cloneFrom(donor)))
		if err := errant.rebuild().Place(ctx); !errors.Is(err, ErrBackup) {
			t.Fatalf("cloned from nobody: %v", err)
		}
		if errant.count() != 51 {
			t.Fatalf("%d rows", errant.count())
		}
	})
}

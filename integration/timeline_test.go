package integration

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// look makes a sample of host in milliseconds; "-db1" is one that found it not serving.
func look(host string, from, to int) Sample {
	serving := host[0] != '-'
	if !serving {
		host = host[1:]
	}
	return Sample{Host: host, From: time.Duration(from) * ms, To: time.Duration(to) * ms, Serving: serving}
}

// TestTwoServing is the sampler's control: histories with two writers that it must
// find, and innocent ones that it must not report.
func TestTwoServing(t *testing.T) {
	for _, c := range []struct {
		name    string
		samples []Sample
		want    bool
	}{
		{"nobody", []Sample{look("-db1", 0, 5), look("-db2", 0, 5)}, false},
		{"one", []Sample{look("db1", 0, 5), look("db1", 10, 15), look("-db2", 0, 20)}, false},
		{"clean hand-over", []Sample{look("db1", 0, 5), look("db1", 10, 15), look("-db1", 20, 25),
			look("db2", 22, 26), look("db2", 30, 35)}, false},
		{"looks that only may overlap", []Sample{look("db1", 0, 5), look("db1", 10, 20), look("db2", 12, 25), look("db2", 30, 31)}, false},
		{"overlapping reigns", []Sample{look("db1", 0, 5), look("db1", 20, 25), look("db1", 40, 45),
			look("db2", 10, 15), look("db2", 30, 35), look("db2", 50, 55)}, true},
		{"one look inside the other's reign", []Sample{look("db1", 0, 5), look("db2", 8, 9), look("db1", 12, 15)}, true},
		{"same, other names", []Sample{look("db2", 0, 5), look("db1", 8, 9), look("db2", 12, 15)}, true},
		{"the break was seen", []Sample{look("db1", 0, 5), look("-db1", 6, 7), look("db2", 8, 9), look("db1", 12, 15)}, false},
		{"too long without a look to know", []Sample{look("db1", 0, 5), look("db2", 100, 110), look("db1", 300, 305)}, false},
		{"a write that waited out the failover", []Sample{look("db1", 0, 2), look("db1", 1, 400), look("db2", 200, 205),
			look("db2", 210, 215)}, false},
		{"long looks inside another's reign", []Sample{look("db1", 0, 300), look("db2", 0, 0), look("db2", 90, 91), look("db2", 180, 181),
			look("db2", 270, 271), look("db2", 310, 311), look("db1", 1, 2)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := TwoServing(c.samples, 100*ms); (len(got) > 0) != c.want {
				t.Errorf("found %v, want a violation: %t", got, c.want)
			}
		})
	}
}

func TestFirstAndLastServing(t *testing.T) {
	samples := []Sample{look("db1", 0, 5), look("db1", 10, 15), look("-db1", 20, 25), look("db2", 22, 26), look("db2", 18, 31)}
	if last, ok := LastServing(samples, "db1"); !ok || last != 10*ms {
		t.Errorf("LastServing = %v, %t", last, ok)
	}
	if first, ok := FirstServing(samples, "db2", 20*ms); !ok || first != 26*ms {
		t.Errorf("FirstServing = %v, %t", first, ok)
	}
	if _, ok := FirstServing(samples, "db1", 12*ms); ok {
		t.Error("FirstServing found a look sent before since")
	}
	if n := Looks(samples); n["db1"] != 3 || n["db2"] != 2 {
		t.Errorf("Looks = %v", n)
	}
}

package mysqld

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// sign makes NAME.pem and NAME.key for a host at 127.0.0.1.
func (a *authority) sign(name string) {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	if der, err = x509.MarshalECPrivateKey(key); err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".key", "EC PRIVATE KEY", der)
}

// withTLS makes a server with a certificate whose replication account demands TLS; its replicas use tls.
func withTLS(t *testing.T, k *kind, a *authority, id int, tls *ReplicationTLS) *node {
	t.Helper()
	a.sign("server")
	n := newNode(t, k, id, "--ssl-ca="+a.path("ca.pem"), "--ssl-cert="+a.path("server.pem"), "--ssl-key="+a.path("server.key"))
	cfg := n.cfg
	cfg.TLS = tls
	n.must(n.Server.Close())
	var err error
	n.Server, err = Open(cfg)
	n.must(err)
	n.start(StartOptions{})
	n.sql("SET GLOBAL read_only=0")
	conn, err := n.boss.Conn(testContext(t))
	n.must(err)
	defer conn.Close()
	for _, s := range []string{"SET sql_log_bin=0", "ALTER USER 'highbase_repl'@'%' REQUIRE SSL"} {
		_, err := conn.ExecContext(testContext(t), s)
		n.must(err)
	}
	return n
}

// TestTLSSurvivesRepoints: the account demands TLS, and replication runs after two repoints, a lost option and a RESET.
func TestTLSSurvivesRepoints(t *testing.T) { eachServer(t, testTLSSurvivesRepoints) }

func testTLSSurvivesRepoints(t *testing.T, k *kind) {
	authority := newAuthority(t)
	authority.sign("replica")
	want := &ReplicationTLS{CA: authority.path("ca.pem"), Cert: authority.path("replica.pem"), Key: authority.path("replica.key"), Verify: true}
	a, b, replica := withTLS(t, k, authority, 1, want), withTLS(t, k, authority, 2, want), withTLS(t, k, authority, 3, want)
	a.lead(false)
	b.follow(a, false)
	encrypted := func(when string) {
		t.Helper()
		replica.connected(false)
		if st := replica.status(); st.Channel.TLS == nil || *st.Channel.TLS != *want || len(st.ChannelDrift) != 0 {
			t.Errorf("%s: %+v, drift %q", when, st.Channel, st.ChannelDrift)
		}
	}
	replica.follow(a, false)
	encrypted("at first")
	for _, src := range []*node{b, a} {
		_, err := replica.Follow(testContext(t), src.source())
		replica.must(err)
		encrypted("after a repoint")
	}
	for _, damage := range []string{"CHANGE MASTER TO MASTER_SSL=0", "CHANGE MASTER TO MASTER_SSL_CA=''", "RESET SLAVE ALL"} {
		replica.say("STOP SLAVE", damage)
		if st := replica.status(); st.HasReplication && len(st.ChannelDrift) == 0 {
			t.Errorf("after %s the drift is %q", damage, st.ChannelDrift)
		}
		_, err := replica.Follow(testContext(t), a.source())
		replica.must(err)
		encrypted("after " + damage)
	}
}

// TestWithoutTLSTheLoginIsRefused is the control: the account does demand it, and verification does look at the signature.
func TestWithoutTLSTheLoginIsRefused(t *testing.T) { eachServer(t, testWithoutTLSTheLoginIsRefused) }

func testWithoutTLSTheLoginIsRefused(t *testing.T, k *kind) {
	authority, stranger := newAuthority(t), newAuthority(t)
	for _, c := range []struct {
		name string
		tls  *ReplicationTLS
	}{{"none", nil}, {"another authority", &ReplicationTLS{CA: stranger.path("ca.pem"), Verify: true}}} {
		if k.dialect == "mysql" && c.tls == nil {
			continue // its receiver takes TLS, unverified, where the source offers it
		}
		a, replica := withTLS(t, k, authority, 1, nil), withTLS(t, k, authority, 2, c.tls)
		_, err := replica.Follow(testContext(t), a.source())
		replica.must(err)
		replica.eventually("being refused: "+c.name, func() bool { return LoginRefused(replica.status().IOErrno) })
	}
}

// TestDelayedReplica: it is repointed at once, keeps its delay, and receives again what was dropped.
func TestDelayedReplica(t *testing.T) { eachServer(t, testDelayedReplica) }

func testDelayedReplica(t *testing.T, k *kind) {
	nodes := cluster(t, k, 3, false)
	source, next, replica := nodes[0], nodes[1], nodes[2]
	ctx := testContext(t)
	replica.say("STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY=3600", "START SLAVE")
	source.must(source.insert(ctx, 3))
	next.must(next.Drain(ctx, source.status().Executed))
	position := source.status().Executed
	receives := func() bool { return replica.status().Received == position }
	replica.eventually("receiving", receives)
	to := next.source()
	to.DiscardReceived = true
	for _, prepare := range [][]string{nil, {"STOP SLAVE"}, {"STOP SLAVE SQL_THREAD"}} {
		replica.say(prepare...)
		_, err := replica.Follow(ctx, to)
		replica.must(err)
		replica.eventually("receiving again", receives)
		if st := replica.status(); st.Channel.Delay != time.Hour || replica.count() != 0 || !st.SQLRunning {
			t.Fatalf("after %q: %d rows, %+v", prepare, replica.count(), st)
		}
	}
}

package raftnode

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"
)

// selfSigned returns both ends of TLS with a certificate that trusts only itself.
func selfSigned(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	certs := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	server = &tls.Config{Certificates: certs, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	return server, &tls.Config{Certificates: certs, RootCAs: pool}
}

func TestGroupOverMutualTLS(t *testing.T) {
	server, client := selfSigned(t)
	_, ms := group(t, 2, func(c *Config) { c.ServerTLS, c.ClientTLS = server, client })
	apply(t, ms, "a")
	holds(t, ms, "a")
	h := hello{Cluster: "c1", From: "db9.aa", To: ms[0].ID()}
	if err := knock(t, ms[0], h); err == nil {
		t.Fatal("a peer without TLS was let in")
	}
	stranger, _ := selfSigned(t)
	raw, err := tls.Dial("tcp", ms[0].Address(), &tls.Config{Certificates: stranger.Certificates, RootCAs: client.RootCAs})
	if err == nil {
		defer closeQuietly(raw)
		// With TLS 1.3 the server's verdict on our certificate arrives with the first answer.
		err = greet(raw, h, time.Now().Add(patience))
	}
	if err == nil {
		t.Fatal("a certificate of another authority was let in")
	}
}

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/highbase/highbase/mysqld"
	"github.com/highbase/highbase/probe"
)

// replicationConfig is the account of replicas, and how they reach their source.
type replicationConfig struct {
	User         string     `yaml:"user"`
	PasswordFile string     `yaml:"password_file"`
	TLS          *tlsConfig `yaml:"tls"` // nil: left as operators set it
	password     string     // read from the file
}

// tlsConfig names files that both hbd and the server read.
type tlsConfig struct {
	CA     string `yaml:"ca"`
	Cert   string `yaml:"cert"`
	Key    string `yaml:"key"`
	Verify *bool  `yaml:"verify"`
}

func (t *tlsConfig) verify() bool { return t.Verify == nil || *t.Verify }

// replication is what replicas are told.
func (t *tlsConfig) replication() *mysqld.ReplicationTLS {
	if t == nil {
		return nil
	}
	return &mysqld.ReplicationTLS{CA: t.CA, Cert: t.Cert, Key: t.Key, Verify: t.verify()}
}

// checkReplication judges the section server.replication.
func (c *config) checkReplication(d *decoder) {
	const key = "server.replication"
	r := &c.Server.Replication
	account := accountConfig{User: r.User, PasswordFile: r.PasswordFile}
	c.checkAccount(d, key, &account, "highbase_repl")
	r.password = account.password
	if r.TLS == nil {
		return
	}
	files := []struct{ name, path string }{{"ca", r.TLS.CA}}
	switch {
	case (r.TLS.Cert == "") != (r.TLS.Key == ""):
		d.refuse(key+".tls", "has only one of cert and key", "give both, or neither")
	case r.TLS.Cert != "":
		files = append(files, struct{ name, path string }{"cert", r.TLS.Cert}, struct{ name, path string }{"key", r.TLS.Key})
	}
	before := len(d.problems)
	for _, f := range files {
		checkPath(d, key+".tls."+f.name, f.path, "/etc/highbase/"+f.name+".pem")
	}
	if len(d.problems) > before {
		return
	}
	if _, err := r.TLS.client(); err != nil {
		d.refuse(key+".tls", fmt.Sprintf("cannot be used: %v", err), "put PEM files there that hbd and the server can read")
	}
}

// client is the same for hbd's own logins at other servers. Sessions are resumed: it logs in several times a second.
func (t *tlsConfig) client() (*tls.Config, error) {
	pem, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), ClientSessionCache: tls.NewLRUClientSessionCache(0), MinVersion: tls.VersionTLS12}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", t.CA)
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if !t.verify() {
		// As the replicas do: signed by the CA, for whatever name.
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(s tls.ConnectionState) error { return signedBy(c.RootCAs, s.PeerCertificates) }
	}
	return c, nil
}

// signedBy verifies a chain without a name.
func signedBy(roots *x509.CertPool, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("the server showed no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, one := range chain[1:] {
		o.Intermediates.AddCert(one)
	}
	_, err := chain[0].Verify(o)
	return err
}

// login is what hbd looks at servers with.
func (r *replicationConfig) login() (probe.Account, error) {
	a := probe.Account{User: r.User, Password: r.password}
	if r.TLS == nil {
		return a, nil
	}
	var err error
	if a.TLS, err = r.TLS.client(); err != nil {
		return a, fmt.Errorf("preparing TLS for logins: %w", err)
	}
	return a, nil
}

// keepChannel notes how a replica is set up, for the time after it was primary: a promotion forgets it in the server.
func (w watched) keepChannel(st mysqld.Status) {
	if !st.HasReplication {
		return
	}
	if before, found := w.channel.Load(); found && reflect.DeepEqual(before, st.Channel) {
		return
	}
	if err := w.channel.Store(st.Channel); err != nil {
		w.log.Error("how this replica is set up is not remembered: options set by hand may be lost when it becomes primary", "error", err)
	}
}

package certs

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// every is the least time between two looks at the files.
const every = time.Second

// Files returns a config that serves the PEM certificate chain in the file cert, leaf first, with the PEM
// private key in the file key; one file may hold both. It is an error when they cannot be read or do not
// fit each other. A certificate outside its dates is served, and logged.
//
// The files are read again during a handshake, at most once a second, and a new pair is in use from that
// handshake on. Content decides, not the time stamp, so files may be rewritten, renamed or swapped by a
// symbolic link, in any order. A new pair that is incomplete, does not fit or is outside its dates is not
// taken: the last good one stays, each such state is logged once, and the next look tries again. While one
// handshake waits for a slow disk, all others use the pair there is.
func Files(cert, key string) (*tls.Config, error) {
	f := &files{cert: cert, key: key}
	p, err := f.read()
	if err != nil {
		return nil, err
	}
	pair, err := f.parse(p)
	if err != nil {
		return nil, err
	}
	f.pair.Store(pair)
	f.loaded = p
	f.look()
	return config(f.certificate), nil
}

type files struct {
	cert, key string // paths

	pair atomic.Pointer[tls.Certificate] // in use

	mu     sync.Mutex // held by the one handshake that looks at the files
	looked time.Time  // guarded by mu
	loaded pems       // guarded by mu: what pair was made from
	logged trouble    // guarded by mu: zero when all was well at the last look
}

// pems are the contents of both files.
type pems struct{ cert, key string }

// trouble is a state that is logged once, however long it lasts.
type trouble struct {
	found pems
	err   string
}

// certificate is a [tls.Config.GetCertificate].
func (f *files) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if f.mu.TryLock() {
		defer f.mu.Unlock()
		if time.Since(f.looked) >= every {
			f.look()
		}
	}
	return f.pair.Load(), nil
}

// look takes a new pair if there is one, and logs what is wrong. f.mu is held, or f not yet shared.
func (f *files) look() {
	message := "certs: keeping the last good certificate"
	found, err := f.reload()
	if err == nil {
		message, err = "certs: clients will refuse the certificate", within(f.pair.Load().Leaf, time.Now())
	}
	var t trouble
	if err != nil {
		t = trouble{found, err.Error()}
		if t != f.logged {
			slog.Warn(message, "cert", f.cert, "err", err)
		}
	}
	f.logged = t
	f.looked = time.Now() // not before the disk has answered
}

// reload takes the pair on disk if it is another one than the pair in use. It returns what it found.
func (f *files) reload() (pems, error) {
	p, err := f.read()
	if err != nil || p == f.loaded {
		return p, err
	}
	pair, err := f.parse(p)
	if err != nil {
		return p, err
	}
	if err := within(pair.Leaf, time.Now()); err != nil {
		return p, fmt.Errorf("certs: %s: %w", f.cert, err)
	}
	f.pair.Store(pair)
	f.loaded = p
	slog.Info("certs: new certificate", "cert", f.cert, "expires", pair.Leaf.NotAfter)
	return p, nil
}

func (f *files) read() (p pems, err error) {
	cert, err := readFile(f.cert)
	if err != nil {
		return p, fmt.Errorf("certs: certificate: %w", err)
	}
	key, err := readFile(f.key)
	if err != nil {
		return p, fmt.Errorf("certs: private key: %w", err)
	}
	return pems{string(cert), string(key)}, nil
}

func (f *files) parse(p pems) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair([]byte(p.cert), []byte(p.key))
	if err != nil {
		return nil, fmt.Errorf("certs: %s, %s: %w: the first must be a PEM certificate, the second its PEM private key",
			f.cert, f.key, err)
	}
	return &pair, nil
}

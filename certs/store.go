package certs

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

const (
	keyPerm  fs.FileMode = 0o600
	certPerm fs.FileMode = 0o644
)

// errRemake ends every error about what a file of the store holds.
var errRemake = errors.New("remove the directory to make new ones")

// A store is the directory of the development certificates. A failure to write is logged and turns it
// into one that holds nothing: from then on it finds no file and keeps none.
//
// Several processes may use one directory without a lock. A key is never replaced, and a certificate
// is only made for the key that is on disk, so whichever certificate comes last fits the key.
type store struct {
	dir string // "" holds nothing
}

func openStore(dir string) *store {
	s := &store{dir}
	if dir == "" {
		return s
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.giveUp(err)
	} else if _, err := os.Stat(s.path(CAFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.giveUp(err) // the directory of another user
	}
	return s
}

func (s *store) path(name string) string { return filepath.Join(s.dir, name) }

// read fails with [fs.ErrNotExist] where there is no such file.
func (s *store) read(name string) ([]byte, error) {
	if s.dir == "" {
		return nil, fs.ErrNotExist
	}
	return readFile(s.path(name))
}

// keep returns what the file holds. Where there is none it writes and returns what newData gives, but
// when another process was first, it returns that one's.
func (s *store) keep(name string, perm fs.FileMode, newData func() ([]byte, error)) ([]byte, error) {
	data, err := s.read(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	if data, err = newData(); err != nil || s.dir == "" {
		return data, err
	}
	// Unlike a rename, a link never replaces a file.
	switch err := s.write(name, data, perm, os.Link); {
	case errors.Is(err, fs.ErrExist):
		return s.read(name)
	case err != nil:
		s.giveUp(err)
	}
	return data, nil
}

// replace writes the file, whether there is one or not.
func (s *store) replace(name string, perm fs.FileMode, data []byte) {
	if s.dir == "" {
		return
	}
	if err := s.write(name, data, perm, os.Rename); err != nil {
		s.giveUp(err)
	}
}

// write puts data into a temporary file and has publish give it its name, so that nobody ever sees a
// part of it.
func (s *store) write(name string, data []byte, perm fs.FileMode, publish func(from, to string) error) error {
	f, err := os.CreateTemp(s.dir, "."+name+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = cmp.Or(err, f.Chmod(perm), f.Sync(), f.Close()); err != nil {
		return err
	}
	return publish(f.Name(), s.path(name))
}

func (s *store) giveUp(err error) {
	slog.Warn("certs: the development certificate is held in memory only", "dir", s.dir, "err", err)
	s.dir = ""
}

package main

import (
	"errors"
	"fmt"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
)

// sealOptions are the flags about key-encryption keys, and the keys while they are
// needed.
type sealOptions struct {
	spec, previousSpec string
	kek, previous      seal.KEK // nil for none
}

func (o *sealOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.spec, "seal", "", "keep keys sealed under the key-encryption key at `SPEC`: file:PATH, fd:N, credential:NAME or pkcs11:URI")
	f.StringVar(&o.previousSpec, "seal-previous", "", "the key-encryption key before (`SPEC`), where --seal is a new one")
}

func (o *sealOptions) check() error {
	if o.spec == "" && o.previousSpec != "" {
		return errors.New("--seal-previous says nothing without --seal: give the new key there")
	}
	return nil
}

// read gets the keys from where they are.
func (o *sealOptions) read(data string, log zerolog.Logger) (err error) {
	for _, k := range []struct {
		spec string
		kek  *seal.KEK
	}{{o.spec, &o.kek}, {o.previousSpec, &o.previous}} {
		if k.spec == "" {
			continue
		}
		source, err := seal.ReadKEK(k.spec, data)
		if err != nil {
			return err
		}
		*k.kek = source.KEK
		if source.SameDisk {
			log.Warn().Str("kek", source.ID()).Msg("the key-encryption key lies on the same file system as the data volume: whoever has that disk has both; only copies of the volume are protected")
		}
	}
	return nil
}

// unlock makes the volume as the flags want it, and returns what opens its keys.
// Nothing else may use the volume.
func (o *sealOptions) unlock(vol durable.FS, root durable.Dir, convert bool, log zerolog.Logger) (*seal.Sealer, error) {
	return o.do(vol, root, seal.Request{KEK: o.kek, Previous: o.previous, Convert: convert}, log)
}

func (o *sealOptions) do(vol durable.FS, root durable.Dir, req seal.Request, log zerolog.Logger) (*seal.Sealer, error) {
	req.Progress = func(done, of int) { log.Info().Int("done", done).Int("of", of).Msg("sealing keys") }
	s, res, err := seal.Unlock(vol, root, req)
	if err != nil {
		return nil, err
	}
	if s != nil {
		log.Info().Str("kek", s.KEK()).Str("kind", req.KEK.Kind()).Str("volume_key", s.VolumeKey()).
			Bool("kek_changed", res.Rotated).Int("looked_at", res.Files).Int("sealed", res.Sealed).Msg("keys are sealed")
	}
	return s, nil
}

// close forgets the key-encryption keys. What opens key files is with the Sealer.
func (o *sealOptions) close() {
	for _, k := range []*seal.KEK{&o.kek, &o.previous} {
		if *k != nil {
			(*k).Close()
			*k = nil
		}
	}
}

// sealCommand is "signdropd seal".
func (o *options) sealCommand() *cobra.Command {
	var newKey bool
	c := &cobra.Command{
		Use:   "seal",
		Short: "seal the keys of a data volume, or change what they are sealed under",
		Long: `Seal encrypts every private key on a data volume that lies in the clear, and
overwrites what was there. There is no way back: from then on signdropd needs the
key-encryption key (--seal) at each start. The signdropd of the volume must not
run. It may be stopped at any moment; run it again with the same keys.

On a volume that is sealed it changes the key-encryption key (--seal the new one,
--seal-previous the one before), seals everything anew under a new volume key
(--new-volume-key), seals what was put back in the clear, and opens every key once.

Keep a copy of the key-encryption key where the volume's backup is not. Without it
no key can ever be used again.`,
		Example: `  head -c 32 /dev/urandom >/etc/signdrop/kek && chmod 0400 /etc/signdrop/kek
  signdropd seal --data /data --seal file:/etc/signdrop/kek
  signdropd seal --data /data --seal fd:3 --seal-previous fd:4 3<new 4<old`,
		Args: noArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return usage(cmd, err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := o.logger()
			if err == nil {
				err = o.seal.check()
			}
			if err == nil && o.seal.spec == "" {
				err = errors.New("which key? say --seal file:PATH, fd:N, credential:NAME or pkcs11:URI")
			}
			if err != nil {
				return usage(cmd, err)
			}
			if err := o.sealNow(log, newKey); err != nil {
				log.Error().Err(err).Msg("stopped by an error")
				return statusError
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&o.data, "data", "/data", "the data volume")
	o.seal.flags(f)
	f.BoolVar(&newKey, "new-volume-key", false, "seal every key anew under a new volume key")
	o.logFlags(f)
	return c
}

func (o *options) sealNow(log zerolog.Logger, newKey bool) error {
	defer o.seal.close()
	if err := o.seal.read(o.data, log); err != nil {
		return err
	}
	vol, root, done, err := openVolume(o.data)
	if err != nil {
		return err
	}
	defer done()
	// Before the lock, whose file would be ours and not the daemon's.
	if err := seal.CheckOwner(root); err != nil {
		return err
	}
	unlock, err := lock(o.data)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = o.seal.do(vol, root, seal.Request{KEK: o.seal.kek, Previous: o.seal.previous, Convert: true, NewVolumeKey: newKey}, log)
	return err
}

// sealerOfDoor opens the keys for a door that runs beside a signer, nil where keys lie
// in the clear.
func (o *options) sealerOfDoor(log zerolog.Logger) (*seal.Sealer, error) {
	if err := o.seal.check(); err != nil || o.seal.spec == "" {
		return nil, err
	}
	defer o.seal.close()
	if err := o.seal.read(o.data, log); err != nil {
		return nil, err
	}
	_, root, done, err := openVolume(o.data)
	if err != nil {
		return nil, err
	}
	defer done()
	s, err := seal.Open(root, o.seal.kek)
	if err != nil {
		return nil, fmt.Errorf("opening the host key: %w", err)
	}
	return s, nil
}

package main

import (
	"regexp"
	"strconv"
	"strings"
)

var services []service

// How the provider is set up: the members of a vector's `setup` (test/vectors/README.md), files by their paths.
type setup struct {
	Command, Provider, Packet, KmsURI string
	Server                            bool
	Keys, Allow                       []string
	KbsKey                            map[string]string `json:"kbs-key"`
	Context                           map[string]string
	StandIn                           *standIn
}

// The provider's answer is a reply or, as a panic, the code of an error.
type failure string

func (s *setup) reference() bool { return s.Command == "kms_oci_crypt" }

func need(ok bool, code failure) {
	if !ok {
		panic(code)
	}
}

func (s *setup) answer(request []byte) string {
	entries := s.operatorEntries()
	need(len(request) <= 262144, "bad-input")
	v, err := parseJSON(request)
	need(err == nil && v.isObject(), "bad-input")
	op := find(v, "op")
	wrapParams, unwrapParams := find(v, "keywrapparams"), find(v, "keyunwrapparams")
	switch op.canonical() {
	case `"keywrap"`:
		need(wrapParams.isObject(), "bad-input")
		written := find(wrapParams, "optsdata")
		record := readRecord(written)
		packet := s.wrap(entries, record, s.named(find(wrapParams, "ec"), true))
		inArray := !written.isText() || strings.HasPrefix(written.text, "{")
		return `{"keywrapresults":{"annotation":` + bytesAs(inArray, packet) + `}}`
	case `"keyunwrap"`:
		need(unwrapParams.isObject(), "bad-input")
		written := find(unwrapParams, "annotation")
		packet, ok := readBytes(written)
		need(ok && len(packet) > 0 && len(packet) <= 32768, "bad-input")
		record := s.unwrap(entries, packet, s.named(find(unwrapParams, "dc"), false))
		return `{"keyunwrapresults":{"optsdata":` + bytesAs(!written.isText(), record) + `}}`
	}
	panic(failure("bad-input"))
}

// bytesAs writes bytes as the client has written its own.
func bytesAs(inArray bool, bytes []byte) string {
	if !inArray {
		return `"` + encode64(bytes) + `"`
	}
	numbers := make([]string, len(bytes))
	for i, one := range bytes {
		numbers[i] = strconv.Itoa(int(one))
	}
	return "[" + strings.Join(numbers, ",") + "]"
}

func find(v value, name string) value {
	found, _, err := v.fold(name)
	need(err == nil, "bad-input")
	return found
}

func (s *setup) operatorEntries() (entries []entry) {
	for _, one := range s.Allow {
		if prefix, ok := parsePrefix(one); ok {
			entries = append(entries, entry{prefix: prefix})
			continue
		}
		entries = append(entries, s.operatorKey(one))
	}
	if s.KmsURI != "" {
		entries = append(entries, s.operatorKey(s.KmsURI))
	}
	for _, path := range s.Keys {
		entries = append(entries, s.operatorKey("keyfile://"+path))
	}
	for name := range s.KbsKey {
		entries = append(entries, s.operatorKey(name))
	}
	return
}

func (s *setup) operatorKey(uri string) entry {
	k, ok := parseKey(uri)
	need(ok, "configuration")
	return entry{key: k}
}

func readBytes(v value) ([]byte, bool) {
	if v.isText() {
		return decode64(v.text)
	}
	if v.kind != '[' {
		return nil, false
	}
	out := []byte{}
	for _, one := range v.list {
		n, err := strconv.ParseUint(one.text, 10, 8)
		if one.kind != '0' || err != nil {
			return nil, false
		}
		out = append(out, byte(n))
	}
	return out, true
}

func readRecord(v value) []byte {
	record, ok := []byte(v.text), v.isText() && strings.HasPrefix(v.text, "{")
	if !ok {
		record, ok = readBytes(v)
	}
	need(ok && len(record) > 0 && len(record) <= 4096, "bad-input")
	return record
}

var otherSchemes = " gpg-client gpg-client-version gpg-privatekeys gpg-privatekeys-passwords gpg-pubkeyringfile gpg-recipients pkcs11-config pkcs11-yamls privkeys privkeys-passwords pubkeys x509s "

// named is the keys that a call names: docs/protocol.md, sections 3 and 4.
func (s *setup) named(config value, wraps bool) (keys []key) {
	need(config.kind == 0 || config.isNull() || config.isObject(), "bad-input")
	parameters := find(config, "Parameters")
	need(parameters.kind == 0 || parameters.isNull() || parameters.isObject(), "bad-input")
	seen := map[string]bool{}
	for _, one := range s.ours(parameters).list {
		bytes, ok := readBytes(one)
		need(ok && len(bytes) <= 2048, "bad-input")
		for _, c := range bytes {
			need(c > ' ' && c <= '~', "bad-input")
		}
		if uri := string(bytes); uri != "" && uri != "Enabled" {
			k, ok := parseKey(uri)
			need(ok, "bad-input")
			if !seen[k.canonical] {
				seen[k.canonical] = true
				keys = append(keys, k)
			}
		}
	}
	if s.KmsURI != "" {
		def, _ := parseKey(s.KmsURI)
		for _, k := range keys {
			need(s.covers(entry{key: def}, k, wraps), "bad-input")
		}
	}
	return
}

func (s *setup) ours(parameters value) value {
	usual := "kmscrypt"
	if s.Server {
		usual = "grpc-keyprovider"
	}
	if s.Provider != "" {
		usual = s.Provider
	}
	if found, ok := parameters.get(usual); ok || s.Provider != "" {
		return found
	}
	for _, name := range []string{"kmscrypt", "grpc-keyprovider"} {
		if found, ok := parameters.get(name); ok {
			return found
		}
	}
	candidates, carry := []value{}, []value{}
	for _, m := range parameters.members {
		if strings.Contains(otherSchemes, " "+m.name+" ") {
			continue
		}
		candidates = append(candidates, m.value)
		for _, one := range m.value.list {
			if bytes, ok := readBytes(one); ok {
				if _, ok := parseKey(string(bytes)); ok {
					carry = append(carry, m.value)
					break
				}
			}
		}
	}
	need(len(carry) < 2, "bad-input")
	if len(carry) == 1 {
		return carry[0]
	}
	if len(candidates) == 1 {
		return candidates[0]
	}
	return value{}
}

// permitted is what opens a key that a call names, or the code of the error if it must not be named.
func (s *setup) permitted(entries []entry, k key, wraps bool) (opener, string) {
	for _, e := range entries {
		if !s.covers(e, k, wraps) {
			continue
		}
		switch {
		case e.path != "":
			return s.openers([]entry{e})[0], ""
		case e.prefix != "" || e.version == "" && k.version != "":
			return opener{entry: entry{key: k}}, ""
		}
		return opener{entry: e}, ""
	}
	code := ""
	if fileKey.MatchString(k.canonical) {
		for _, o := range s.openers(entries) {
			if o.file != nil && o.canonical == k.canonical {
				return o, ""
			}
			if code == "" {
				code = o.code
			}
		}
	}
	switch {
	case k.operatorOnly || s.Server && code == "":
		return opener{}, "not-allowed"
	case code != "" && (s.Server || k.scheme == "keyfile" && k.path == ""):
		return opener{}, code
	}
	return opener{entry: entry{key: k}}, ""
}

// covers says whether a key that a call names is the operator's.
func (s *setup) covers(e entry, k key, wraps bool) bool {
	if e.prefix != "" || e.scheme != k.scheme {
		return e.covers(k)
	}
	switch e.scheme {
	case "gcpkms", "azurekms":
		return e.base == k.base && (e.version == "" || e.version == k.version || s.reference() && e.scheme == "gcpkms")
	case "awskms":
		// What is wrapped would be for whatever key an alias is of.
		return e.canonical == k.canonical || e.allowsAWS(k) && !(wraps && e.aws[2] != "")
	case "pkcs11":
		return e.allows(k, false, "", false)
	}
	return e.canonical == k.canonical
}

// Keys that packets and callers know by what a file holds.
var fileKey = regexp.MustCompile(`^(?:keyfile:sha256:|age1)`)

func (s *setup) wrap(entries []entry, record []byte, keys []key) []byte {
	for i, k := range keys {
		o, code := s.permitted(entries, k, true)
		need(code == "", failure(code))
		if k.scheme == "gcpkms" {
			keys[i] = o.key
		}
	}
	if len(keys) == 0 {
		if s.KmsURI != "" {
			k, _ := parseKey(s.KmsURI)
			keys = []key{k}
		} else {
			need(len(entries) == 1 && entries[0].prefix == "", "bad-input")
			keys = []key{entries[0].key}
		}
	}
	need(isRecord(record), "bad-input")
	need(len(keys) <= 16, "bad-input")
	google := len(keys) == 1 && keys[0].scheme == "gcpkms" && len(s.Context) == 0
	if s.Packet == "v1" || s.Packet == "" && s.reference() && google {
		need(google, "bad-input")
		sv := s.service(keys[0].base, keys[0].version)
		if sv.RSA == nil {
			r := sv.wrap(record, keys[0], nil)
			return []byte(`{"key_url":"` + keys[0].base + `","wrapped_key":"` + encode64(r.wrapped) + `","wrap_type":"AES"}`)
		}
		need(s.Packet == "", "bad-input")
	}
	if s.Packet == "coco-v2" {
		need(len(keys) == 1 && keys[0].scheme == "awskms", "bad-input")
		sv := s.service(keys[0].canonical, "")
		need(sv.RSA == nil, "bad-input")
		return s.coco(sv.wrap(record, keys[0], contextOf("coco-v2", s.Context)))
	}
	sealed := seal(record, s.Context)
	recipients := []recipient{}
	for _, k := range keys {
		recipients = append(recipients, s.wrapFor(k, sealed.dataKey, sealed.context()))
	}
	packet := sealed.packet(recipients)
	need(len(packet) <= 32768, "bad-input")
	return packet
}

func (s *setup) coco(r recipient) []byte {
	context := `{"ocicrypt-kms":"coco-v2"`
	for name, one := range s.Context {
		context += "," + text("label."+name).canonical() + ":" + text(one).canonical()
	}
	return []byte(`{"version":"0.1.0","kid":"` + strings.TrimPrefix(r.key.canonical, "awskms:///") + `","wrapped_data":"` + encode64(r.wrapped) +
		`","provider":"aws","provider_settings":{"region":"` + strings.Split(r.key.aws[0], ":")[3] +
		`"},"annotations":{"encryption_context":` + context + `}}}`)
}

func (s *setup) wrapFor(k key, dataKey []byte, context map[string]string) recipient {
	switch k.scheme {
	case "keyfile":
		f := s.file(k)
		if f.secret == nil {
			return wrapAge(f.identities[0].recipient, dataKey)
		}
		sv := f.service()
		named, _ := parseKey(sv.Key)
		return sv.wrap(dataKey, named, context)
	case "age":
		return wrapAge(k.canonical, dataKey)
	case "kbs":
		path, named := s.kbsFile(k)
		need(named, "configuration")
		_, code := readKeyFile(path)
		need(code == "", failure(code))
		panic(failure("bad-input"))
	case "own":
		panic(failure("configuration"))
	}
	return s.service(s.nameOf(k), k.version).wrap(dataKey, k, context)
}

func (s *setup) nameOf(k key) string {
	if k.scheme == "awskms" {
		return k.canonical
	}
	return k.base
}

// file is the key file that a key names by its path, or by its thumbprint if the operator named its path.
func (s *setup) file(k key) keyFile {
	if k.path != "" {
		f, code := readKeyFile(k.path)
		need(code == "", failure(code))
		return f
	}
	for _, o := range s.openers(s.operatorEntries()) {
		if o.file != nil && o.canonical == k.canonical {
			return *o.file
		}
	}
	panic(failure("configuration"))
}

func (s *setup) kbsFile(k key) (string, bool) {
	for name, path := range s.KbsKey {
		if one, ok := parseKey(name); ok && one.canonical == k.canonical {
			return path, true
		}
	}
	return "", false
}

// azureCloud is what the hosts of vaults and managed HSMs are.
var azureCloud = regexp.MustCompile(`^azurekms://[^./]+\.(?:vault|managedhsm)\.(?:azure\.net|azure\.cn|usgovcloudapi\.net)/`)

// service is the key that answers to a name, in a version if one is named.
func (s *setup) service(name, version string) service {
	if k, _ := parseKey(name); k.scheme == "azurekms" {
		need(azureCloud.MatchString(k.base), "configuration")
	}
	for _, one := range services {
		k, _ := parseKey(one.Key)
		asked, _ := parseKey(name)
		same := one.Key == name
		if k.scheme == "awskms" && asked.scheme == "awskms" {
			same = same || asked.aws[0] == "" && asked.aws[1] != "" && asked.aws[1] == k.aws[1]
		}
		if same {
			need(version == "" || version == one.Version, "not-found")
			return one
		}
	}
	panic(failure("not-found"))
}

// What opens a recipient: the operator's entry, and a key file or identities that it names.
type opener struct {
	entry
	file  *keyFile
	code  string // of a key file that cannot be used
	named *entry // the key that the call named
}

// The order of docs/errors.md, "Several keys".
var codes = []string{"throttled", "unavailable", "deadline-exceeded", "unauthenticated", "refused", "key-disabled", "configuration", "not-found", "integrity"}

func (s *setup) unwrap(entries []entry, data []byte, keys []key) []byte {
	p, ok := parsePacket(data)
	need(ok, "bad-input")
	openers := s.openers(entries)
	if len(keys) > 0 {
		openers = nil
		refusal := ""
		for _, k := range keys {
			o, code := s.permitted(entries, k, false)
			if code == "" && k.path != "" {
				openers = append(openers, s.openers([]entry{{key: k}})...)
			} else if code == "" {
				o.named = &entry{key: k}
				openers = append(openers, o)
			} else if refusal == "" {
				refusal = code
			}
		}
		need(len(openers) > 0, failure(refusal))
	}
	if len(s.Context) > 0 {
		need(p.format != "v1" && len(s.Context) == len(p.labels), "not-allowed")
		for name, one := range s.Context {
			value, ok := p.labels[name]
			need(ok && value == one, "not-allowed")
		}
	}
	failures := []string{}
	for _, r := range p.recipients {
		asymmetric := strings.HasPrefix(r.algorithm, "RSA_DECRYPT_OAEP_")
		for _, o := range openers {
			if o.code != "" && fileKey.MatchString(r.key.canonical) {
				failures = append(failures, o.code)
			}
			if o.code != "" || !o.allows(r.key, asymmetric, r.version, s.reference()) ||
				o.named != nil && !o.named.allows(r.key, asymmetric, r.version, s.reference()) {
				continue
			}
			record, code := s.try(o, p, r)
			if code == "" {
				return record
			}
			failures = append(failures, code)
		}
	}
	for _, code := range codes {
		for _, one := range failures {
			need(one != code, failure(code))
		}
	}
	panic(failure("not-allowed"))
}

func (s *setup) openers(entries []entry) (openers []opener) {
	for _, e := range entries {
		if e.path == "" {
			openers = append(openers, opener{entry: e})
			continue
		}
		f, code := readKeyFile(e.path)
		if code != "" {
			openers = append(openers, opener{entry: e, code: code})
			continue
		}
		names := []string{}
		if f.secret != nil {
			names = append(names, thumbprint(f.secret))
		}
		for _, one := range f.identities {
			names = append(names, one.recipient)
		}
		for _, name := range names {
			k, _ := parseKey(name)
			openers = append(openers, opener{entry: entry{key: k}, file: &f})
		}
	}
	return
}

func (s *setup) try(o opener, p *packet, r recipient) (record []byte, code string) {
	defer func() {
		if caught := recover(); caught != nil {
			code = string(caught.(failure))
		}
	}()
	plain, ok := s.ask(o, p, r)
	need(ok, "integrity")
	record, ok = p.open(plain)
	need(ok, "integrity")
	return record, ""
}

func (s *setup) ask(o opener, p *packet, r recipient) ([]byte, bool) {
	if s.StandIn != nil {
		return s.StandIn.unwrap(p, r)
	}
	name := s.nameOf(o.key)
	if o.prefix != "" {
		name = s.nameOf(r.key)
	}
	switch r.key.scheme {
	case "keyfile":
		f := o.file
		if f == nil {
			found := s.file(o.key)
			f = &found
		}
		return f.service().unwrap(r, p.context)
	case "age":
		identities := []identity{}
		if o.file != nil {
			identities = o.file.identities
		}
		for _, path := range s.Keys {
			f, _ := readKeyFile(path)
			identities = append(identities, f.identities...)
		}
		return unwrapAge(identities, r)
	case "kbs":
		path, named := s.kbsFile(r.key)
		need(named, "configuration")
		f, code := readKeyFile(path)
		need(code == "", failure(code))
		need(f.secret != nil, "configuration")
		if p.format == "v2" {
			return nil, false
		}
		return openGCM(f.secret, r.wrapped, nil)
	case "own":
		panic(failure("configuration"))
	}
	need(r.key.scheme != "azurekms" || azureCloud.MatchString(name), "configuration")
	if !r.fits() {
		return nil, false
	}
	version := ""
	if r.key.scheme == "azurekms" {
		version = r.key.version
	}
	sv := s.service(name, version)
	switch {
	case r.key.scheme == "gcpkms" && googleRSA.MatchString(r.algorithm) && sv.RSA != nil:
		need(r.version == sv.Version, "not-found")
	case r.key.scheme == "azurekms":
		need(r.algorithm != "A256GCM" || sv.Algorithm != "A256KW", "configuration") // it may not decrypt
	case r.key.scheme == "awskms":
		answer, _ := parseKey(sv.Answer)
		need(sv.Answer == "" || r.key.aws[0] == "" || entry{key: answer}.allowsAWS(r.key), "integrity")
	}
	return sv.unwrap(r, p.context)
}

func (s *setup) forge(f forgery) []byte {
	p, ok := parsePacket(f.Packet)
	need(ok && p.format == "v2", "bad-input")
	for _, r := range p.recipients {
		for _, o := range s.openers(s.operatorEntries()) {
			if o.code != "" || !o.allows(r.key, strings.HasPrefix(r.algorithm, "RSA_"), r.version, false) {
				continue
			}
			if _, code := s.try(o, p, r); code == "" {
				dataKey, _ := s.ask(o, p, r)
				return forgeWith(dataKey, f)
			}
		}
	}
	panic(failure("integrity"))
}

func forgeWith(dataKey []byte, f forgery) []byte {
	v, err := parseJSON([]byte(f.Members))
	must(err)
	set := func(name, to string) {
		for i := range v.members {
			if v.members[i].name == name {
				v.members[i].value = text(to)
			}
		}
	}
	if f.Record != nil {
		nonce := random(12)
		set("nonce", encode64(nonce))
		set("ciphertext", encode64(gcm(derive(dataKey, "content")).Seal(nil, nonce, f.Record, nil)))
	}
	set("mac", encode64(macOf(dataKey, v)))
	return []byte(v.canonical())
}

// Command interop holds what Mayfly's proofs say against Go's own transparency log, which the checksum database of Go runs on. It reads a log on
// standard input, checks all of it, and prints the same log as Go makes it, for the other side to check. It ends with status 1 at the first fault.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// height of a tile: 256 hashes. Go writes it into the path of a tile, C2SP tlog-tiles does not.
const height = 8

type inclusion struct {
	Index int64    `json:"index"`
	Size  int64    `json:"size"`
	Path  [][]byte `json:"path"`
}

type consistency struct {
	From int64    `json:"from"`
	Size int64    `json:"size"`
	Path [][]byte `json:"path"`
}

type log struct {
	Key         string            `json:"key"`
	Checkpoint  string            `json:"checkpoint"`
	Leaves      [][]byte          `json:"leaves,omitempty"`
	Tiles       map[string][]byte `json:"tiles"`
	Bundles     map[string][]byte `json:"bundles,omitempty"`
	Inclusion   []inclusion       `json:"inclusion"`
	Consistency []consistency     `json:"consistency"`
}

func main() {
	var given log
	must(json.NewDecoder(os.Stdin).Decode(&given))
	own := store(given.Leaves)
	tree := checkCheckpoint(given, own)
	checkProofs(given, own)
	checkTiles(given, own, tree)
	checkBundles(given)
	must(json.NewEncoder(os.Stdout).Encode(answer(given, own, tree)))
}

// hashes are all that Go keeps of a tree, in its own order.
type hashes []tlog.Hash

func (kept hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	read := make([]tlog.Hash, len(indexes))
	for at, index := range indexes {
		read[at] = kept[index]
	}
	return read, nil
}

func store(leaves [][]byte) hashes {
	var kept hashes
	for index, leaf := range leaves {
		more, err := tlog.StoredHashes(int64(index), leaf, kept)
		must(err)
		kept = append(kept, more...)
	}
	return kept
}

func checkCheckpoint(given log, own hashes) tlog.Tree {
	verifier, err := note.NewVerifier(given.Key)
	must(err)
	opened, err := note.Open([]byte(given.Checkpoint), note.VerifierList(verifier))
	must(err)
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	root, err := tlog.ParseHash(lines[2])
	must(err)
	require(lines[0] == verifier.Name(), "the origin is not the key's name")
	require(size == int64(len(given.Leaves)), "the checkpoint is of another size")
	require(root == treeHash(own, size), "the checkpoint has another root")
	return tlog.Tree{N: size, Hash: root}
}

func checkProofs(given log, own hashes) {
	for _, proof := range given.Inclusion {
		leaf := tlog.RecordHash(given.Leaves[proof.Index])
		must(tlog.CheckRecord(asHashes(proof.Path), proof.Size, treeHash(own, proof.Size), proof.Index, leaf))
	}
	for _, proof := range given.Consistency {
		must(tlog.CheckTree(asHashes(proof.Path), proof.Size, treeHash(own, proof.Size), proof.From, treeHash(own, proof.From)))
	}
}

// tiles are served under the paths of C2SP tlog-tiles.
type tiles map[string][]byte

func (tiles) Height() int                     { return height }
func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (served tiles) ReadTiles(asked []tlog.Tile) ([][]byte, error) {
	read := make([][]byte, len(asked))
	for at, tile := range asked {
		data, found := served[pathOf(tile)]
		if !found {
			return nil, fmt.Errorf("there is no %s", pathOf(tile))
		}
		read[at] = data
	}
	return read, nil
}

func pathOf(tile tlog.Tile) string {
	return strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
}

// checkTiles reads each leaf through the tiles, as a client of the log does: the reader itself refuses tiles that are not of the signed tree.
func checkTiles(given log, own hashes, tree tlog.Tree) {
	reader := tlog.TileHashReader(tree, tiles(given.Tiles))
	for index := int64(0); index < tree.N; index++ {
		proof, err := tlog.ProveRecord(tree.N, index, reader)
		must(err)
		must(tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(given.Leaves[index])))
	}
	for path, data := range tilesOf(own, tree.N) {
		require(bytes.Equal(given.Tiles[path], data), "another tile at "+path)
	}
}

func tilesOf(own hashes, size int64) map[string][]byte {
	made := map[string][]byte{}
	for _, tile := range tlog.NewTiles(height, 0, size) {
		data, err := tlog.ReadTileData(tile, own)
		must(err)
		made[pathOf(tile)] = data
	}
	return made
}

func checkBundles(given log) {
	var leaves [][]byte
	for index := 0; len(leaves) < len(given.Leaves); index++ {
		path := fmt.Sprintf("tile/entries/%03d", index)
		if left := len(given.Leaves) - len(leaves); left < 1<<height {
			path += fmt.Sprintf(".p/%d", left)
		}
		bundle, found := given.Bundles[path]
		require(found && len(bundle) > 0, "there is no "+path)
		for len(bundle) > 0 {
			length := binary.BigEndian.Uint16(bundle)
			leaves = append(leaves, bundle[2:2+length])
			bundle = bundle[2+length:]
		}
	}
	for index, leaf := range leaves {
		require(bytes.Equal(leaf, given.Leaves[index]), fmt.Sprint("another entry at ", index))
	}
}

// answer is the same log, made and signed by Go.
func answer(given log, own hashes, tree tlog.Tree) log {
	secret, key, err := note.GenerateKey(rand.Reader, "go.example.com/log")
	must(err)
	signer, err := note.NewSigner(secret)
	must(err)
	text := fmt.Sprintf("go.example.com/log\n%d\n%s\n", tree.N, tree.Hash)
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	must(err)
	made := log{Key: key, Checkpoint: string(signed), Tiles: tilesOf(own, tree.N)}
	for _, asked := range given.Inclusion {
		proof, err := tlog.ProveRecord(asked.Size, asked.Index, own)
		must(err)
		made.Inclusion = append(made.Inclusion, inclusion{asked.Index, asked.Size, asBytes(proof)})
	}
	for _, asked := range given.Consistency {
		proof, err := tlog.ProveTree(asked.Size, asked.From, own)
		must(err)
		made.Consistency = append(made.Consistency, consistency{asked.From, asked.Size, asBytes(proof)})
	}
	return made
}

func treeHash(own hashes, size int64) tlog.Hash {
	root, err := tlog.TreeHash(size, own)
	must(err)
	return root
}

func asHashes(path [][]byte) []tlog.Hash {
	read := make([]tlog.Hash, len(path))
	for at, hash := range path {
		require(copy(read[at][:], hash) == tlog.HashSize, "a hash of another length")
	}
	return read
}

func asBytes(path []tlog.Hash) [][]byte {
	read := make([][]byte, len(path))
	for at := range path {
		read[at] = path[at][:]
	}
	return read
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func require(holds bool, otherwise string) {
	if !holds {
		must(fmt.Errorf("%s", otherwise))
	}
}

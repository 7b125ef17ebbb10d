"""Checkpoints: read by explicit byte ranges, checked strictly, cut for ranks. Nothing is loaded that is not asked for.

reader      files below a weights root, counted
index       where tensors lie in them
comparison  what is there against what a model expects
tensors     one tensor, or a rank's share of it
loading     into a model
sharding    a file for each rank
digest      what tells weights apart
checkpoint  files of torch.save
"""

from model.weights.checkpoint import read_checkpoint
from model.weights.comparison import check_state, check_tensors
from model.weights.digest import check_cut, deciding_files, file_digest, weights_digest
from model.weights.index import DTYPES, Index, TensorEntry, index_of, read_index
from model.weights.loading import check_transformer, load_module, load_transformer_weights
from model.weights.reader import LocalWeights, ReadCounts, WeightReader, WeightsMismatch, local_copy, pieces
from model.weights.sharding import SHARDS, Shards, rank_file, read_shards, write_rank_file
from model.weights.tensors import read_tensor

__all__ = [
    "DTYPES",
    "SHARDS",
    "Index",
    "LocalWeights",
    "ReadCounts",
    "Shards",
    "TensorEntry",
    "WeightReader",
    "WeightsMismatch",
    "check_cut",
    "check_state",
    "check_tensors",
    "check_transformer",
    "deciding_files",
    "file_digest",
    "index_of",
    "load_module",
    "load_transformer_weights",
    "local_copy",
    "pieces",
    "rank_file",
    "read_checkpoint",
    "read_index",
    "read_shards",
    "read_tensor",
    "weights_digest",
    "write_rank_file",
]

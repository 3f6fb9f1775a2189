# Types of the extension module: the functions of csrc/mrn.h, as cffi shows them.

from typing import Any

class _Lib:
    MRN_MAX_LAYERS: int
    MRN_MAX_WIDTH: int
    def mrn_status_name(self, status: int) -> Any: ...
    def mrn_status_message(self, status: int) -> Any: ...
    def mrn_isa_count(self) -> int: ...
    def mrn_isa_name(self, isa: int) -> Any: ...
    def mrn_isa_usable(self, isa: int) -> int: ...
    def mrn_isa_choose(self, highest: Any, isa: Any) -> int: ...
    def mrn_precision_count(self) -> int: ...
    def mrn_precision_name(self, precision: int) -> Any: ...
    def mrn_precision_usable(self, precision: int, isa: int) -> int: ...
    def mrn_activation_count(self) -> int: ...
    def mrn_activation_name(self, activation: int) -> Any: ...
    def mrn_model_plan(self, network: Any, isa: int, plan: Any) -> int: ...
    def mrn_model_open(self, network: Any, isa: int, block: Any, block_bytes: int, model: Any) -> int: ...
    def mrn_model_predict(self, model: Any, x: Any, rows: int, y: Any, scratch: Any) -> int: ...
    MRN_BLOCK_ALIGN: int
    MRN_MAX_THREADS: int
    def mrn_pool_bytes(self) -> int: ...
    def mrn_pool_open(self, threads: int, block: Any, block_bytes: int, pool: Any) -> int: ...
    def mrn_pool_close(self, pool: Any) -> None: ...
    def mrn_pool_settle(self, pool: Any) -> None: ...
    def mrn_model_workspace_bytes(self, model: Any, pool: Any, size: Any) -> int: ...
    def mrn_model_predict_shared(
        self,
        model: Any,
        pool: Any,
        x: Any,
        rows: int,
        y: Any,
        workspace: Any,
    ) -> int: ...
    MRN_INDEX_VERSION: int
    MRN_FOLD_VERSION: int
    MRN_MERGED: int
    MRN_TEXT_MAX: int
    MRN_KEY_MAX: int
    MRN_PAYLOAD_MAX: int
    MRN_QUERY_MAX: int
    MRN_LIMIT_MAX: int
    def mrn_http_read(self, data: bytes, bytes: int, request: Any) -> int: ...  # noqa: A002 - the name in mrn.h
    def mrn_json_rows(self, json: Any, size: int, columns: int, x: Any, capacity: int, rows: Any) -> int: ...
    MRN_HTTP_HEAD_MAX: int
    MRN_HTTP_HEADERS_MAX: int
    MRN_HTTP_UNTOLD: int
    MRN_HTTP_JSON: int
    MRN_HTTP_OCTETS: int
    MRN_HTTP_TIMING: int
    MRN_JSON_FLOAT: int
    def mrn_json_tensor(
        self, json: Any, size: int, columns: int, x: Any, capacity: int, request: Any
    ) -> int: ...
    def mrn_raw_rows(self, raw: Any, size: int, columns: int, x: Any, capacity: int, rows: Any) -> int: ...
    def mrn_all_finite(self, values: Any, count: int) -> int: ...
    def mrn_json_floats(self, values: Any, count: int, out: Any, capacity: int, size: Any) -> int: ...
    def mrn_json_predictions_bytes(self, form: Any, rows: int) -> int: ...
    def mrn_json_predictions(
        self, form: Any, y: Any, rows: int, out: Any, capacity: int, size: Any
    ) -> int: ...
    def mrn_fold(self, text: Any, bytes: int, key: Any, capacity: int, key_bytes: Any) -> int: ...  # noqa: A002 - the name in mrn.h
    def mrn_index_build(self, entries: Any, verdicts: Any, file: Any, file_bytes: Any) -> int: ...
    def mrn_free(self, memory: Any) -> None: ...
    def mrn_index_scratch_bytes(self, file_bytes: int) -> int: ...
    def mrn_index_open(
        self, file: Any, file_bytes: int, scratch: Any, scratch_bytes: int, index: Any, fault: Any
    ) -> int: ...
    MRN_EDITS_AUTO: int
    MRN_TAGS_MAX: int
    MRN_TAG_MAX: int
    MRN_ID_MAX: int
    MRN_SEGMENTS_MAX: int
    MRN_INDEX_WORDS: int
    MRN_INDEX_CAMEL: int
    def mrn_index_find(self, index: Any, text: bytes, text_bytes: int, workspace: Any, entry: Any) -> int: ...
    def mrn_index_parents(self, index: Any, parents: Any) -> int: ...
    def mrn_index_entry(
        self,
        index: Any,
        parents: Any,
        rank: int,
        text: Any,
        text_bytes: Any,
        score: Any,
        payload: Any,
        payload_bytes: Any,
        contexts: Any,
    ) -> int: ...
    def mrn_index_id(self, index: Any, rank: int, id: Any, id_bytes: Any) -> int: ...  # noqa: A002 - the name in mrn.h
    def mrn_id_hash(self, id: bytes, id_bytes: int) -> int: ...  # noqa: A002 - likewise
    def mrn_index_id_hashes(self, index: Any, hashes: Any) -> int: ...
    def mrn_index_columns(
        self,
        index: Any,
        parents: Any,
        skip: Any,
        next: Any,  # noqa: A002 - likewise
        columns: Any,
        rows: Any,
    ) -> int: ...
    def mrn_index_tag(self, index: Any, tag: int, name: Any, name_bytes: Any) -> int: ...
    def mrn_reader_plan(self, segments: Any, bytes: Any) -> int: ...  # noqa: A002 - the name in mrn.h
    def mrn_reader_open(self, segments: Any, block: Any, block_bytes: int, reader: Any) -> int: ...
    def mrn_reader_complete(
        self,
        reader: Any,
        query: bytes,
        query_bytes: int,
        options: Any,
        workspace: Any,
        completions: Any,
        count: Any,
        texts: Any,
        texts_bytes: int,
        partial: Any,
    ) -> int: ...
    def mrn_reader_complete_json(
        self,
        reader: Any,
        query: bytes,
        query_bytes: int,
        options: Any,
        workspace: Any,
        json: Any,
        capacity: int,
        json_bytes: Any,
    ) -> int: ...

ffi: Any
lib: _Lib

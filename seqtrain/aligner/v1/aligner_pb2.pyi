from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    D_TYPE_UNSPECIFIED: _ClassVar[DType]
    D_TYPE_INT32: _ClassVar[DType]
    D_TYPE_INT64: _ClassVar[DType]
    D_TYPE_FLOAT32: _ClassVar[DType]
    D_TYPE_FLOAT64: _ClassVar[DType]
    D_TYPE_FLOAT16: _ClassVar[DType]

class ItemCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ITEM_CODE_UNSPECIFIED: _ClassVar[ItemCode]
    ITEM_CODE_OK: _ClassVar[ItemCode]
    ITEM_CODE_UNKNOWN_SEGMENT: _ClassVar[ItemCode]
    ITEM_CODE_OUT_OF_VOCABULARY: _ClassVar[ItemCode]
    ITEM_CODE_FAILED: _ClassVar[ItemCode]
    ITEM_CODE_INFEASIBLE: _ClassVar[ItemCode]
    ITEM_CODE_CRASHED: _ClassVar[ItemCode]
    ITEM_CODE_QUARANTINED: _ClassVar[ItemCode]
    ITEM_CODE_SKIPPED: _ClassVar[ItemCode]

class Capability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAPABILITY_UNSPECIFIED: _ClassVar[Capability]
    CAPABILITY_AUTOMATA_BY_SEGMENT: _ClassVar[Capability]
    CAPABILITY_AUTOMATA_BY_ORTHOGRAPHY: _ClassVar[Capability]
    CAPABILITY_ALIGNMENTS: _ClassVar[Capability]
    CAPABILITY_FORCED_ALIGNMENT: _ClassVar[Capability]
    CAPABILITY_LOSSES: _ClassVar[Capability]
    CAPABILITY_SHARED_MEMORY: _ClassVar[Capability]
D_TYPE_UNSPECIFIED: DType
D_TYPE_INT32: DType
D_TYPE_INT64: DType
D_TYPE_FLOAT32: DType
D_TYPE_FLOAT64: DType
D_TYPE_FLOAT16: DType
ITEM_CODE_UNSPECIFIED: ItemCode
ITEM_CODE_OK: ItemCode
ITEM_CODE_UNKNOWN_SEGMENT: ItemCode
ITEM_CODE_OUT_OF_VOCABULARY: ItemCode
ITEM_CODE_FAILED: ItemCode
ITEM_CODE_INFEASIBLE: ItemCode
ITEM_CODE_CRASHED: ItemCode
ITEM_CODE_QUARANTINED: ItemCode
ITEM_CODE_SKIPPED: ItemCode
CAPABILITY_UNSPECIFIED: Capability
CAPABILITY_AUTOMATA_BY_SEGMENT: Capability
CAPABILITY_AUTOMATA_BY_ORTHOGRAPHY: Capability
CAPABILITY_ALIGNMENTS: Capability
CAPABILITY_FORCED_ALIGNMENT: Capability
CAPABILITY_LOSSES: Capability
CAPABILITY_SHARED_MEMORY: Capability

class PackedArray(_message.Message):
    __slots__ = ("dtype", "shape", "raw")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    dtype: DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    raw: bytes
    def __init__(self, dtype: _Optional[_Union[DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., raw: _Optional[bytes] = ...) -> None: ...

class ItemKey(_message.Message):
    __slots__ = ("segment", "orthography")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    ORTHOGRAPHY_FIELD_NUMBER: _ClassVar[int]
    segment: str
    orthography: str
    def __init__(self, segment: _Optional[str] = ..., orthography: _Optional[str] = ...) -> None: ...

class ItemStatus(_message.Message):
    __slots__ = ("code", "message", "words")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    code: ItemCode
    message: str
    words: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, code: _Optional[_Union[ItemCode, str]] = ..., message: _Optional[str] = ..., words: _Optional[_Iterable[str]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_batch", "max_name_length", "max_orthography_length", "max_concurrent_calls", "max_request_bytes", "max_stream_requests", "max_score_bytes", "max_shared_memory_bytes")
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_NAME_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_ORTHOGRAPHY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_SCORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SHARED_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_batch: int
    max_name_length: int
    max_orthography_length: int
    max_concurrent_calls: int
    max_request_bytes: int
    max_stream_requests: int
    max_score_bytes: int
    max_shared_memory_bytes: int
    def __init__(self, max_batch: _Optional[int] = ..., max_name_length: _Optional[int] = ..., max_orthography_length: _Optional[int] = ..., max_concurrent_calls: _Optional[int] = ..., max_request_bytes: _Optional[int] = ..., max_stream_requests: _Optional[int] = ..., max_score_bytes: _Optional[int] = ..., max_shared_memory_bytes: _Optional[int] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("server_version", "backend", "capabilities", "limits", "config_digest", "inventory_etag", "host_id", "instance_id")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_ETAG_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    backend: str
    capabilities: _containers.RepeatedScalarFieldContainer[Capability]
    limits: Limits
    config_digest: str
    inventory_etag: str
    host_id: str
    instance_id: str
    def __init__(self, server_version: _Optional[str] = ..., backend: _Optional[str] = ..., capabilities: _Optional[_Iterable[_Union[Capability, str]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., config_digest: _Optional[str] = ..., inventory_etag: _Optional[str] = ..., host_id: _Optional[str] = ..., instance_id: _Optional[str] = ...) -> None: ...

class LabelInventoryHeader(_message.Message):
    __slots__ = ("num_labels", "silence", "blank", "inventory_etag", "config_digest")
    NUM_LABELS_FIELD_NUMBER: _ClassVar[int]
    SILENCE_FIELD_NUMBER: _ClassVar[int]
    BLANK_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_ETAG_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    num_labels: int
    silence: int
    blank: int
    inventory_etag: str
    config_digest: str
    def __init__(self, num_labels: _Optional[int] = ..., silence: _Optional[int] = ..., blank: _Optional[int] = ..., inventory_etag: _Optional[str] = ..., config_digest: _Optional[str] = ...) -> None: ...

class GetLabelInventoryRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLabelInventoryResponse(_message.Message):
    __slots__ = ("header", "labels")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    header: LabelInventoryHeader
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, header: _Optional[_Union[LabelInventoryHeader, _Mapping]] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class GetAutomataRequest(_message.Message):
    __slots__ = ("request_id", "items")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    items: _containers.RepeatedCompositeFieldContainer[ItemKey]
    def __init__(self, request_id: _Optional[int] = ..., items: _Optional[_Iterable[_Union[ItemKey, _Mapping]]] = ...) -> None: ...

class GetAutomataResponse(_message.Message):
    __slots__ = ("request_id", "inventory_etag", "config_digest", "statuses", "num_states", "starts", "num_arcs", "arcs", "weights", "num_finals", "final_states", "final_weights")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_ETAG_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    NUM_STATES_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    NUM_ARCS_FIELD_NUMBER: _ClassVar[int]
    ARCS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    NUM_FINALS_FIELD_NUMBER: _ClassVar[int]
    FINAL_STATES_FIELD_NUMBER: _ClassVar[int]
    FINAL_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    inventory_etag: str
    config_digest: str
    statuses: _containers.RepeatedCompositeFieldContainer[ItemStatus]
    num_states: PackedArray
    starts: PackedArray
    num_arcs: PackedArray
    arcs: PackedArray
    weights: PackedArray
    num_finals: PackedArray
    final_states: PackedArray
    final_weights: PackedArray
    def __init__(self, request_id: _Optional[int] = ..., inventory_etag: _Optional[str] = ..., config_digest: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[ItemStatus, _Mapping]]] = ..., num_states: _Optional[_Union[PackedArray, _Mapping]] = ..., starts: _Optional[_Union[PackedArray, _Mapping]] = ..., num_arcs: _Optional[_Union[PackedArray, _Mapping]] = ..., arcs: _Optional[_Union[PackedArray, _Mapping]] = ..., weights: _Optional[_Union[PackedArray, _Mapping]] = ..., num_finals: _Optional[_Union[PackedArray, _Mapping]] = ..., final_states: _Optional[_Union[PackedArray, _Mapping]] = ..., final_weights: _Optional[_Union[PackedArray, _Mapping]] = ...) -> None: ...

class GetAlignmentsRequest(_message.Message):
    __slots__ = ("request_id", "segments")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    segments: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[int] = ..., segments: _Optional[_Iterable[str]] = ...) -> None: ...

class GetAlignmentsResponse(_message.Message):
    __slots__ = ("request_id", "inventory_etag", "config_digest", "statuses", "num_frames", "labels")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_ETAG_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    NUM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    inventory_etag: str
    config_digest: str
    statuses: _containers.RepeatedCompositeFieldContainer[ItemStatus]
    num_frames: PackedArray
    labels: PackedArray
    def __init__(self, request_id: _Optional[int] = ..., inventory_etag: _Optional[str] = ..., config_digest: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[ItemStatus, _Mapping]]] = ..., num_frames: _Optional[_Union[PackedArray, _Mapping]] = ..., labels: _Optional[_Union[PackedArray, _Mapping]] = ...) -> None: ...

class StreamAutomataRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: GetAutomataRequest
    def __init__(self, request: _Optional[_Union[GetAutomataRequest, _Mapping]] = ...) -> None: ...

class StreamAutomataResponse(_message.Message):
    __slots__ = ("response",)
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    response: GetAutomataResponse
    def __init__(self, response: _Optional[_Union[GetAutomataResponse, _Mapping]] = ...) -> None: ...

class SharedMemoryRange(_message.Message):
    __slots__ = ("name", "offset", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    offset: int
    bytes: int
    def __init__(self, name: _Optional[str] = ..., offset: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class ScoresHeader(_message.Message):
    __slots__ = ("request_id", "segments", "num_frames", "num_labels", "dtype", "inventory_etag", "shared", "result")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    NUM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    NUM_LABELS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_ETAG_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    segments: _containers.RepeatedScalarFieldContainer[str]
    num_frames: _containers.RepeatedScalarFieldContainer[int]
    num_labels: int
    dtype: DType
    inventory_etag: str
    shared: SharedMemoryRange
    result: SharedMemoryRange
    def __init__(self, request_id: _Optional[int] = ..., segments: _Optional[_Iterable[str]] = ..., num_frames: _Optional[_Iterable[int]] = ..., num_labels: _Optional[int] = ..., dtype: _Optional[_Union[DType, str]] = ..., inventory_etag: _Optional[str] = ..., shared: _Optional[_Union[SharedMemoryRange, _Mapping]] = ..., result: _Optional[_Union[SharedMemoryRange, _Mapping]] = ...) -> None: ...

class AlignRequest(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: ScoresHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[ScoresHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class AlignResponse(_message.Message):
    __slots__ = ("response",)
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    response: GetAlignmentsResponse
    def __init__(self, response: _Optional[_Union[GetAlignmentsResponse, _Mapping]] = ...) -> None: ...

class ComputeLossesRequest(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: ScoresHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[ScoresHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class LossesHeader(_message.Message):
    __slots__ = ("request_id", "inventory_etag", "config_digest", "statuses", "losses")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_ETAG_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    inventory_etag: str
    config_digest: str
    statuses: _containers.RepeatedCompositeFieldContainer[ItemStatus]
    losses: PackedArray
    def __init__(self, request_id: _Optional[int] = ..., inventory_etag: _Optional[str] = ..., config_digest: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[ItemStatus, _Mapping]]] = ..., losses: _Optional[_Union[PackedArray, _Mapping]] = ...) -> None: ...

class ComputeLossesResponse(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: LossesHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[LossesHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class RegisterSharedMemoryRequest(_message.Message):
    __slots__ = ("name", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    bytes: int
    def __init__(self, name: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class RegisterSharedMemoryResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnregisterSharedMemoryRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnregisterSharedMemoryResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

"""Keys of DeepSpeed's configuration, as `deepspeed.extra` may use them: which are free, and who owns the others.

A table, because a recipe is checked without torch and DeepSpeed; a test holds it against the installed DeepSpeed. Keys
are dotted. A key that is in none of the tables does not exist.
"""

OWNERS: dict[str, str] = {
    "train_batch_size": "training.batch_size",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.micro_batch_size",
    "gradient_clipping": "training.max_grad_norm",
    "optimizer": "training.optimizer",
    "scheduler": "training.schedule",
    "bf16": "training.precision",
    "bfloat16": "training.precision",
    "fp16": "training.precision",
    "amp": "training.precision",
    "torch_autocast": "training.precision",
    "zero_optimization.stage": "deepspeed.stage",
    "zero_optimization.offload_optimizer.device": "deepspeed.offload.optimizer",
    "zero_optimization.offload_optimizer.nvme_path": "deepspeed.offload.nvme_path",
    "zero_optimization.offload_param.device": "deepspeed.offload.parameters",
    "zero_optimization.offload_param.nvme_path": "deepspeed.offload.nvme_path",
    "zero_optimization.cpu_offload": "deepspeed.offload.optimizer",
    "zero_optimization.cpu_offload_param": "deepspeed.offload.parameters",
    "zero_optimization.cpu_offload_use_pin_memory": "deepspeed.extra.zero_optimization.offload_optimizer.pin_memory",
}
"""Key → the field that stands for it."""

_SUMS = "dudi-kit sets it, so that what is learned does not depend on how a batch is split"
_LOGS = "dudi-kit logs by itself, into the run directory"
_CHECKPOINTS = "dudi-kit writes and reads the checkpoints"
_LEARNED = "it would change what is learned, which the rest of the recipe describes"
_ROUNDED = "it rounds what is learned to 8 or 4 bits on its way between the processes"
_MODEL = "it is for models of other kinds than dudi-kit trains"
_OPTIMIZER = "dudi-kit makes the optimizer and sets it to fit"

OURS: dict[str, str] = {
    "communication_data_type": _SUMS,
    "seq_parallel_communication_data_type": _SUMS,
    "data_types": _SUMS,
    "gradient_allreduce_op": _SUMS,
    "managed_gradient_accumulation": _SUMS,
    "check_grad_overflow": _SUMS,
    "zero_allow_untested_optimizer": _OPTIMIZER,
    "zero_force_ds_cpu_optimizer": _OPTIMIZER,
    "steps_per_print": _LOGS,
    "wall_clock_breakdown": _LOGS,
    "tensorboard": _LOGS,
    "wandb": _LOGS,
    "comet": _LOGS,
    "csv_monitor": _LOGS,
    "flops_profiler": _LOGS,
    "autotuning": "it would start runs of its own",
    "elasticity": "it would change the batch, which the recipe fixes",
    "checkpoint": _CHECKPOINTS,
    "nebula": _CHECKPOINTS,
    "datastates_ckpt": _CHECKPOINTS,
    "zero_optimization.load_from_fp32_weights": _CHECKPOINTS,
    "zero_optimization.elastic_checkpoint": _CHECKPOINTS,
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": _CHECKPOINTS,
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": _CHECKPOINTS,
    "zero_optimization.gather_16bit_weights_on_model_save": _CHECKPOINTS,
    "zero_optimization.compute_grad_norm": "dudi-kit clips by the norm, and stops where it is not finite",
    "zero_optimization.memory_efficient_linear": "it rounds differently, in the teacher's layers too",
    "zero_optimization.zenflow": _LEARNED,
    "zero_optimization.zero_quantized_gradients": _ROUNDED,
    "zero_optimization.zero_quantized_nontrainable_weights": _ROUNDED,
    "zero_optimization.zero_quantized_weights": _ROUNDED,
    "zero_optimization.legacy_stage1": _LEARNED,
    "compression_training": _LEARNED,
    "quantize_training": _LEARNED,
    "weight_quantization": _LEARNED,
    "progressive_layer_drop": _LEARNED,
    "curriculum_learning": _LEARNED,
    "data_efficiency": _LEARNED,
    "eigenvalue": _LEARNED,
    "sparse_attention": _LEARNED,
    "dataloader_drop_last": "dudi-kit draws the rows",
    "activation_checkpointing": "it is about DeepSpeed's own layers, which no student has",
    "compile": "dudi-kit drives the engine by hand, which DeepSpeed's compiler does not follow",
    "graph_harvesting": "dudi-kit drives the engine by hand, which a recorded graph does not follow",
    "hybrid_engine": "dudi-kit samples with transformers",
    "tensor_parallel": _MODEL,
    "pipeline": _MODEL,
    "expert_parallel": _MODEL,
    "use_data_before_expert_parallelism": _MODEL,
    "vocabulary_size": _MODEL,
    "sparse_gradients": _MODEL,
    "zero_optimization.leaf_module": _MODEL,
    "zero_optimization.save_muon_momentum_buffer_in_memory": _MODEL,
}
"""Key → why a recipe can't set it."""

FREE: frozenset[str] = frozenset(
    {
        "aio",
        "comms_logger",
        "disable_allgather",
        "disable_python_gc",
        "dump_state",
        "gradient_predivide_factor",
        "log_level",
        "memory_breakdown",
        "prescale_gradients",
        "timers",
        *(
            f"zero_optimization.{key}"
            for key in (
                "allgather_bucket_size",
                "allgather_partitions",
                "contiguous_gradients",
                "enable_sanity_checks",
                "ignore_unused_parameters",
                "log_trace_cache_warnings",
                "overlap_comm",
                "override_module_apply",
                "parameter_alignment",
                "pipeline_loading_checkpoint",
                "reduce_bucket_size",
                "reduce_scatter",
                "round_robin_gradients",
                "stage3_allgather_sequential",
                "stage3_max_live_parameters",
                "stage3_max_reuse_distance",
                "stage3_model_persistence_threshold",
                "stage3_module_granularity_threshold",
                "stage3_param_persistence_threshold",
                "stage3_prefetch_bucket_size",
                "stage3_use_all_reduce_for_fetch_params",
                "sub_group_size",
                "use_multi_rank_bucket_allreduce",
                "zero_hpz_partition_size",
            )
        ),
        *(
            f"zero_optimization.offload_optimizer.{key}"
            for key in (
                "buffer_count",
                "cpuadam_cores_perc",
                "fast_init",
                "pin_memory",
                "pipeline_read",
                "pipeline_write",
                "ratio",
                "super_offload",
            )
        ),
        *(
            f"zero_optimization.offload_param.{key}"
            for key in ("buffer_count", "buffer_size", "max_in_cpu", "pin_memory")
        ),
    }
)
"""Keys that a recipe may set, with any value that DeepSpeed takes."""

SECTIONS: frozenset[str] = frozenset(
    key[:end] for key in (*OWNERS, *OURS, *FREE) for end, char in enumerate(key) if char == "."
)
"""Keys that hold some of the others."""

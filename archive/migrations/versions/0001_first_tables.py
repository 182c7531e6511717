"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _states(name: str, *states: str) -> sa.Enum:
    return sa.Enum(*states, name=name, native_enum=False, create_constraint=True, length=16)


def upgrade() -> None:
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subject", sa.String(16), nullable=False),
        sa.Column("subject_id", sa.Integer(), nullable=False),
        sa.Column("what", sa.String(64), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="event_key"),
    )
    op.create_index("event_by_subject", "event", ["subject", "subject_id"])

    op.create_table(
        "group",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(32), nullable=False),
        sa.Column("key", sa.String(256), nullable=False),
        sa.Column("night", sa.Date(), nullable=False),
        sa.Column("mjd", sa.Float(53), nullable=False),
        sa.Column("expected", sa.Integer(), nullable=False),
        sa.Column("state", _states("groupstate", "open", "complete", "closed", "incomplete"), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("last_arrival", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closes", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="group_key"),
        sa.UniqueConstraint("tag", "key", name="group_tag_key_unique"),
    )
    op.create_index("group_by_mjd", "group", ["mjd"])
    op.create_index("group_by_night", "group", ["night"])
    op.create_index("group_by_state", "group", ["state"])

    op.create_table(
        "frame",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dp_id", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("path", sa.String(1024), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("tag", sa.String(32), nullable=False),
        sa.Column("catg", sa.String(32), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("tech", sa.String(32), nullable=False),
        sa.Column("rule", sa.String(128), nullable=False),
        sa.Column("mjd", sa.Float(53), nullable=False),
        sa.Column("exptime", sa.Double(), nullable=False),
        sa.Column("night", sa.Date(), nullable=False),
        sa.Column("origfile", sa.String(128), nullable=False),
        sa.Column("tpl_id", sa.String(64), nullable=False),
        sa.Column("tpl_start", sa.String(32), nullable=False),
        sa.Column("tpl_nexp", sa.Integer(), nullable=False),
        sa.Column("tpl_expno", sa.Integer(), nullable=False),
        sa.Column("lamps", sa.JSON(), nullable=False),
        sa.Column("channels", sa.JSON(), nullable=False),
        sa.Column("cards", sa.JSON(), nullable=False),
        sa.Column("ingested", sa.DateTime(timezone=True), nullable=False),
        sa.Column("superseded_by", sa.Integer(), nullable=True),
        sa.Column("group_id", sa.Integer(), nullable=True),
        sa.Column("mode", sa.String(32), nullable=False),
        sa.Column("readout", sa.String(32), nullable=False),
        sa.Column("readout_id", sa.Integer(), nullable=False),
        sa.Column("binx", sa.Integer(), nullable=False),
        sa.Column("biny", sa.Integer(), nullable=False),
        sa.Column("filter", sa.String(32), nullable=False),
        sa.Column("optics", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["group.id"], name="frame_group_id_refers"),
        sa.ForeignKeyConstraint(["superseded_by"], ["frame.id"], name="frame_superseded_by_refers"),
        sa.PrimaryKeyConstraint("id", name="frame_key"),
        sa.UniqueConstraint("digest", name="frame_digest_unique"),
        sa.UniqueConstraint("dp_id", "version", name="frame_dp_id_version_unique"),
    )
    op.create_index("frame_by_group_id", "frame", ["group_id"])
    op.create_index("frame_by_night", "frame", ["night"])
    op.create_index("frame_by_tag_time", "frame", ["tag", "mjd"])

    op.create_table(
        "step",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            _states("stepstate", "waiting", "queued", "running", "done", "failed", "held", "cancelled"),
            nullable=False,
        ),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("identity", sa.String(64), nullable=True),
        sa.Column("recipe", sa.String(32), nullable=False),
        sa.Column("recipe_version", sa.String(16), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("missing", sa.JSON(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("stale", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("error_kind", sa.String(16), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["group_id"], ["group.id"], name="step_group_id_refers"),
        sa.PrimaryKeyConstraint("id", name="step_key"),
        sa.UniqueConstraint("group_id", "name", "sequence", name="step_group_id_name_sequence_unique"),
    )
    op.create_index("step_by_group_id", "step", ["group_id"])
    op.create_index("step_by_identity", "step", ["identity"])
    op.create_index("step_by_name", "step", ["name"])
    op.create_index("step_by_state", "step", ["state"])

    op.create_table(
        "arrival",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(1024), nullable=False),
        sa.Column("kept", sa.String(1024), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            _states("arrivalstate", "waiting", "stalled", "ingested", "duplicate", "quarantined", "released", "gone"),
            nullable=False,
        ),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=True),
        sa.Column("frame_id", sa.Integer(), nullable=True),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["frame_id"], ["frame.id"], name="arrival_frame_id_refers"),
        sa.PrimaryKeyConstraint("id", name="arrival_key"),
    )
    op.create_index("arrival_by_frame_id", "arrival", ["frame_id"])
    op.create_index("arrival_by_path", "arrival", ["path"])
    op.create_index("arrival_by_state", "arrival", ["state"])

    op.create_table(
        "part",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("step_id", sa.Integer(), nullable=False),
        sa.Column("channel", sa.Integer(), nullable=False),
        sa.Column("state", _states("partstate", "queued", "running", "done", "failed", "cancelled"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("sent", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.String(128), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("memory", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("error_kind", sa.String(16), nullable=False),
        sa.Column("outcome", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["step_id"], ["step.id"], name="part_step_id_refers"),
        sa.PrimaryKeyConstraint("id", name="part_key"),
        sa.UniqueConstraint("step_id", "channel", name="part_step_id_channel_unique"),
    )
    op.create_index("part_by_state", "part", ["state"])
    op.create_index("part_by_step_id", "part", ["step_id"])

    op.create_table(
        "product",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("step_id", sa.Integer(), nullable=True),
        sa.Column("catg", sa.String(32), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("dp_id", sa.String(64), nullable=False),
        sa.Column("path", sa.String(1024), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("night", sa.Date(), nullable=False),
        sa.Column("mjd", sa.Float(53), nullable=False),
        sa.Column("channels", sa.JSON(), nullable=False),
        sa.Column("certification", _states("certification", "provisional", "certified", "rejected"), nullable=False),
        sa.Column("score", sa.String(8), nullable=False),
        sa.Column("static", sa.Boolean(), nullable=False),
        sa.Column("reviewed", sa.Boolean(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mode", sa.String(32), nullable=False),
        sa.Column("readout", sa.String(32), nullable=False),
        sa.Column("readout_id", sa.Integer(), nullable=False),
        sa.Column("binx", sa.Integer(), nullable=False),
        sa.Column("biny", sa.Integer(), nullable=False),
        sa.Column("filter", sa.String(32), nullable=False),
        sa.Column("optics", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["step_id"], ["step.id"], name="product_step_id_refers"),
        sa.PrimaryKeyConstraint("id", name="product_key"),
        sa.UniqueConstraint("dp_id", name="product_dp_id_unique"),
        sa.UniqueConstraint("name", name="product_name_unique"),
    )
    op.create_index("product_by_catg_time", "product", ["catg", "mjd"])
    op.create_index("product_by_night", "product", ["night"])
    op.create_index("product_by_reviewed", "product", ["reviewed"])
    op.create_index("product_by_step_id", "product", ["step_id"])

    op.create_table(
        "measurement",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("product_id", sa.Integer(), nullable=False),
        sa.Column("channel", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Float(53), nullable=True),
        sa.Column("text", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["product_id"], ["product.id"], name="measurement_product_id_refers"),
        sa.PrimaryKeyConstraint("id", name="measurement_key"),
        sa.UniqueConstraint("product_id", "channel", "name", name="measurement_product_id_channel_name_unique"),
    )
    op.create_index("measurement_by_name", "measurement", ["name"])

    op.create_table(
        "use",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("step_id", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(32), nullable=False),
        sa.Column("frame_id", sa.Integer(), nullable=True),
        sa.Column("product_id", sa.Integer(), nullable=True),
        sa.Column("level", sa.Integer(), nullable=True),
        sa.Column("days", sa.Float(53), nullable=True),
        sa.Column("certification", sa.String(16), nullable=False),
        sa.Column("differences", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["frame_id"], ["frame.id"], name="use_frame_id_refers"),
        sa.ForeignKeyConstraint(["product_id"], ["product.id"], name="use_product_id_refers"),
        sa.ForeignKeyConstraint(["step_id"], ["step.id"], name="use_step_id_refers"),
        sa.PrimaryKeyConstraint("id", name="use_key"),
    )
    op.create_index("use_by_frame_id", "use", ["frame_id"])
    op.create_index("use_by_product_id", "use", ["product_id"])
    op.create_index("use_by_step_id", "use", ["step_id"])

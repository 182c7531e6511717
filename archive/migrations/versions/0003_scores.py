"""Scores and judges, groups of an archive that was taken in, what done steps were held against, search by target."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_GROUP_STATES = ("open", "complete", "closed", "incomplete")


def _text(name: str, length: int | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, server_default="")


def upgrade() -> None:
    with op.batch_alter_table("group") as group:
        group.drop_constraint("groupstate", type_="check")
        states = ", ".join(f"'{state}'" for state in (*_GROUP_STATES, "archived"))
        group.create_check_constraint("groupstate", f"state IN ({states})")

    op.create_index("group_by_tag_time", "group", ["tag", "mjd"])

    with op.batch_alter_table("step") as step:
        step.add_column(sa.Column("weighed", sa.String(64), nullable=True, server_default=""))
        step.create_index("step_by_weighed", ["name", "weighed"])
    _without_defaults("step", "weighed")

    with op.batch_alter_table("measurement") as measurement:
        measurement.add_column(_text("score", 8))
        measurement.add_column(_text("remark"))
    _without_defaults("measurement", "score", "remark")

    with op.batch_alter_table("product") as product:
        product.add_column(_text("judge", 16))
        product.add_column(_text("score_reason"))
        product.add_column(_text("thresholds", 64))
        product.add_column(sa.Column("compared_id", sa.Integer(), nullable=True))
        product.add_column(sa.Column("ancestors", sa.JSON(), nullable=False, server_default="[]"))
        product.add_column(_text("run", 64))
        product.add_column(_text("signature", 32))
        product.create_foreign_key("product_compared_id_refers", "product", ["compared_id"], ["id"])
        for column in ("compared_id", "run", "signature"):
            product.create_index(f"product_by_{column}", [column])
    _without_defaults("product", "judge", "score_reason", "thresholds", "ancestors", "run", "signature")
    op.create_index("product_by_time", "product", ["mjd", "id"])
    op.create_index("product_by_static_catg_time", "product", ["static", "catg", "mjd"])

    with op.batch_alter_table("frame") as frame:
        frame.add_column(_text("object", 80))
        frame.create_index("frame_by_object", ["object"])
        frame.create_index("frame_by_origfile", ["origfile"])
        frame.create_index("frame_by_time", ["mjd", "id"])
    _without_defaults("frame", "object")
    named = sa.table("frame", sa.column("object", sa.String), sa.column("cards", sa.JSON))
    op.execute(named.update().values(object=sa.func.coalesce(named.c.cards["OBJECT"].as_string(), "")))

    # Whoever brought a static calibration vouched for it, and every other verdict so far was a person's.
    op.execute("UPDATE product SET judge = 'person' WHERE certification <> 'provisional'")


def _without_defaults(table: str, *columns: str) -> None:
    """Take away what only the rows that are there needed."""
    with op.batch_alter_table(table) as altered:
        for column in columns:
            altered.alter_column(column, server_default=None)

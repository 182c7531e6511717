"""Static calibrations: the file they came as, the version of a response, and the monthly pair."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("arrival") as arrival:
        arrival.add_column(sa.Column("product_id", sa.Integer(), nullable=True))
        arrival.create_foreign_key("arrival_product_id_refers", "product", ["product_id"], ["id"])
        arrival.create_index("arrival_by_product_id", ["product_id"])

    with op.batch_alter_table("group") as group:
        group.add_column(sa.Column("partner_id", sa.Integer(), nullable=True))
        group.add_column(sa.Column("released", sa.DateTime(timezone=True), nullable=True))
        group.create_foreign_key("group_partner_id_refers", "group", ["partner_id"], ["id"])
        group.create_index("group_by_partner_id", ["partner_id"])

    with op.batch_alter_table("product") as product:
        product.add_column(sa.Column("response", sa.Integer(), nullable=True))
        product.add_column(sa.Column("geometry_id", sa.Integer(), nullable=True))
        product.create_foreign_key("product_geometry_id_refers", "product", ["geometry_id"], ["id"])
        product.create_index("product_by_geometry_id", ["geometry_id"])

"""Books, and an index that is built beside the work: outside of any transaction."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade():
    op.create_table(
        "books",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("author_id", sa.Integer, sa.ForeignKey("authors.id"), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("about", postgresql.JSONB),
    )
    with op.get_context().autocommit_block():
        op.create_index("books_title", "books", ["title"], postgresql_concurrently=True)


def downgrade():
    op.drop_table("books")
